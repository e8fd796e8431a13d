//! Decides: reads from Go's struct definitions what OpenAPI does not say: the protobuf number of each field, whether
//! JSON leaves out its zero, and its default. The tags of the structs are what the release's `.proto` files are made from; those
//! files do not tell a pointer from a plain field.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is known of one field, by its JSON name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    pub number: u16,
    /// The numbers of the embedded structs that it comes from, the outermost first.
    pub inside: Vec<u16>,
    pub omits_zero: bool,
    /// It is in the JSON of a zero struct: it has no option that leaves it out.
    pub always: bool,
    /// JSON leaves out its zero even when it is a struct.
    pub omitzero: bool,
    pub pointer: bool,
    /// JSON, empty when it has none.
    pub default: String,
}

/// The Go packages of a folder, read when first asked for.
pub struct Sources {
    folder: PathBuf,
    packages: BTreeMap<String, Structs>,
}

type Structs = BTreeMap<String, Vec<Line>>;

/// One field of a struct.
#[derive(Clone, Debug, Default)]
struct Line {
    go_type: String,
    embedded: bool,
    json: String,
    omitempty: bool,
    omitzero: bool,
    number: u16,
    default: String,
}

impl Sources {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, packages: BTreeMap::new() }
    }

    /// The tags of an OpenAPI definition such as `io.k8s.api.core.v1.PodSpec`.
    pub fn tags(&mut self, definition: &str) -> BTreeMap<String, Tag> {
        let (package, name) = definition.rsplit_once('.').expect("definitions have dots");
        let path = package.strip_prefix("io.k8s.").expect("definitions are Kubernetes'").replace('.', "/");
        let structs = self.packages.entry(path).or_insert_with_key(|path| read(&self.folder.join(path)));
        let mut out = BTreeMap::new();
        add(structs, name, &[], &mut out);
        out
    }
}

/// The tags of a struct that is embedded in those of the numbers `inside`.
fn add(structs: &Structs, name: &str, inside: &[u16], out: &mut BTreeMap<String, Tag>) {
    for line in structs.get(name).unwrap_or_else(|| panic!("no struct {name} in the sources")) {
        // TypeMeta has no number: it is in the envelope.
        if !line.embedded || !line.json.is_empty() {
            out.insert(line.json.clone(), line.tag(inside));
        } else if line.number != 0 {
            add(structs, &line.go_type, &[inside, &[line.number]].concat(), out);
        }
    }
}

impl Line {
    fn tag(&self, inside: &[u16]) -> Tag {
        let pointer = self.go_type.starts_with('*');
        Tag {
            number: self.number,
            inside: inside.to_vec(),
            omits_zero: self.omitempty && !pointer,
            always: !self.omitempty && !self.omitzero,
            omitzero: self.omitzero,
            pointer,
            default: self.default.clone(),
        }
    }
}

fn read(package: &Path) -> Structs {
    let mut out = Structs::new();
    for entry in std::fs::read_dir(package).unwrap_or_else(|e| panic!("{}: {e}", package.display())) {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".go") && !name.ends_with("_test.go") && !name.contains("generated") {
            parse(&std::fs::read_to_string(&path).expect("a readable file"), &mut out);
        }
    }
    out
}

fn parse(text: &str, out: &mut Structs) {
    let mut open: Option<String> = None;
    let mut default = String::new();
    for line in text.lines() {
        if let Some(marker) = line.trim().strip_prefix("// +default=") {
            // Others refer to constants of the package.
            default =
                if serde_json::from_str::<serde_json::Value>(marker).is_ok() { marker.into() } else { String::new() };
        }
        if let Some(name) = line.strip_prefix("type ").and_then(|l| l.strip_suffix(" struct{}")) {
            out.insert(name.to_owned(), Vec::new());
        } else if let Some(name) = line.strip_prefix("type ").and_then(|l| l.strip_suffix(" struct {")) {
            out.insert(name.to_owned(), Vec::new());
            open = Some(name.to_owned());
        } else if line == "}" {
            open = None;
        } else if let Some(lines) = open.as_ref().and_then(|name| out.get_mut(name))
            && let Some(field) = field(line.trim())
        {
            lines.push(Line { default: std::mem::take(&mut default), ..field });
        }
    }
}

/// `Replicas *int32 ‵json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"‵`
fn field(line: &str) -> Option<Line> {
    let (head, tags) = line.split_once('`').filter(|_| !line.starts_with("//"))?;
    let tag = |key: &str| tags.split_once(&format!("{key}:\"")).and_then(|(_, t)| t.split('"').next());
    let (json, options) = tag("json")?.split_once(',').unwrap_or((tag("json")?, ""));
    let number = tag("protobuf").and_then(|t| t.split(',').nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0);
    let words: Vec<&str> = head.split_whitespace().collect();
    Some(Line {
        go_type: words.last()?.trim_start_matches("metav1.").to_string(),
        embedded: words.len() == 1,
        json: json.to_owned(),
        omitempty: options.split(',').any(|o| o == "omitempty"),
        omitzero: options.split(',').any(|o| o == "omitzero"),
        number,
        default: String::new(),
    })
}

#[test]
fn a_struct_becomes_tags() {
    let mut structs = Structs::new();
    let text = "type A struct {\n\tmetav1.TypeMeta `json:\",inline\"`\n\t// B is `one`.\n\
                \tB *int32 `json:\"b,omitempty\" protobuf:\"varint,3,opt,name=b\"`\n\tC string `json:\"c,omitempty\" protobuf:\"bytes,4,opt,name=c\"`\n\
                \t// +default=\"x\"\n\tD string `json:\"d\" protobuf:\"bytes,5,opt,name=d\"`\n\tE `json:\",inline\" protobuf:\"bytes,1,opt,name=e\"`\n}\n\
                type E struct {\n\tF bool `json:\"f,omitempty\" protobuf:\"varint,3,opt,name=f\"`\n\
                \tG `json:\",inline\" protobuf:\"bytes,2,opt,name=g\"`\n}\n\
                type G struct {\n\tH bool `json:\"h,omitempty\" protobuf:\"varint,3,opt,name=h\"`\n}\n";
    parse(text, &mut structs);
    let mut sources = Sources::new(PathBuf::new());
    sources.packages.insert("api/x/v1".into(), structs);
    let tag =
        |number, inside: &[u16], omits_zero| Tag { number, inside: inside.to_vec(), omits_zero, ..Tag::default() };
    let b = Tag { pointer: true, ..tag(3, &[], false) };
    let d = Tag { always: true, default: "\"x\"".into(), ..tag(5, &[], false) };
    let (f, h) = (tag(3, &[1], true), tag(3, &[1, 2], true));
    let expect = [("b", b), ("c", tag(4, &[], true)), ("d", d), ("f", f), ("h", h)];
    let expect: BTreeMap<String, Tag> = expect.into_iter().map(|(name, tag)| (name.to_owned(), tag)).collect();
    assert_eq!(sources.tags("io.k8s.api.x.v1.A"), expect);
}
