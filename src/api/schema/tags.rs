//! Decides: reads from Go's struct definitions what OpenAPI does not say: the protobuf number of each field, whether
//! JSON leaves out its zero, its default, and the values that its type has constants for. The tags of the structs are what the release's `.proto` files are made from; those
//! files do not tell a pointer from a plain field.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CORE: &str = "api/core/v1";

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
    /// Sorted; empty when its type is no enumeration.
    pub values: Vec<String>,
}

/// The Go packages of a folder, read when first asked for.
pub struct Sources {
    folder: PathBuf,
    packages: BTreeMap<String, Package>,
}

#[derive(Default)]
struct Package {
    structs: BTreeMap<String, Vec<Line>>,
    /// The values of each type that is marked as an enumeration.
    enums: BTreeMap<String, Vec<String>>,
}

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

    /// The tags of an OpenAPI definition such as `io.k8s.api.core.v1.PodSpec`; `None` when its package is not there.
    pub fn tags(&mut self, definition: &str) -> Option<BTreeMap<String, Tag>> {
        let (package, name) = definition.rsplit_once('.').expect("definitions have dots");
        let path = package.strip_prefix("io.k8s.").expect("definitions are Kubernetes'").replace('.', "/");
        for path in [CORE, &path] {
            let folder = self.folder.join(path);
            if !self.packages.contains_key(path) && folder.is_dir() {
                self.packages.insert(path.into(), read(&folder));
            }
        }
        let mut out = BTreeMap::new();
        self.add(self.packages.get(&path)?, name, &[], &mut out);
        Some(out)
    }

    /// The tags of a struct that is embedded in those of the numbers `inside`.
    fn add(&self, package: &Package, name: &str, inside: &[u16], out: &mut BTreeMap<String, Tag>) {
        for line in package.structs.get(name).unwrap_or_else(|| panic!("no struct {name} in the sources")) {
            // TypeMeta has no number: it is in the envelope.
            if !line.embedded || !line.json.is_empty() {
                out.insert(line.json.clone(), line.tag(inside, self.values(package, &line.go_type)));
            } else if line.number != 0 {
                self.add(package, &line.go_type, &[inside, &[line.number]].concat(), out);
            }
        }
    }

    /// The values of a type, or of the items of a list of it. Types of other packages are those of core.
    fn values(&self, package: &Package, go_type: &str) -> Vec<String> {
        let name = go_type.trim_start_matches(['*', '[', ']']);
        let enums = match name.split_once('.') {
            None => Some(&package.enums),
            Some(("v1" | "corev1", _)) => self.packages.get(CORE).map(|core| &core.enums),
            Some(_) => None,
        };
        let name = name.rsplit('.').next().unwrap_or(name);
        enums.and_then(|e| e.get(name)).cloned().unwrap_or_default()
    }
}

impl Line {
    fn tag(&self, inside: &[u16], values: Vec<String>) -> Tag {
        let pointer = self.go_type.starts_with('*');
        Tag {
            number: self.number,
            inside: inside.to_vec(),
            omits_zero: self.omitempty && !pointer,
            always: !self.omitempty && !self.omitzero,
            omitzero: self.omitzero,
            pointer,
            default: self.default.clone(),
            values,
        }
    }
}

fn read(package: &Path) -> Package {
    let mut out = Package::default();
    for entry in std::fs::read_dir(package).unwrap_or_else(|e| panic!("{}: {e}", package.display())) {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".go") && !name.ends_with("_test.go") && !name.contains("generated") {
            parse(&std::fs::read_to_string(&path).expect("a readable file"), &mut out);
        }
    }
    for values in out.enums.values_mut() {
        values.sort();
    }
    out
}

fn parse(text: &str, out: &mut Package) {
    let mut open: Option<String> = None;
    let (mut default, mut is_enum) = (String::new(), false);
    // Constants may come before their type.
    let constants: Vec<(&str, &str)> = text.lines().filter_map(constant).collect();
    for line in text.lines() {
        if line == "// +enum" {
            is_enum = true;
        } else if !line.starts_with("//") {
            if let Some(name) = line.strip_prefix("type ").and_then(|l| l.strip_suffix(" string")).filter(|_| is_enum) {
                let values = constants.iter().filter(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned());
                out.enums.entry(name.to_owned()).or_default().extend(values);
            }
            is_enum = false;
        }
        if let Some(marker) = line.trim().strip_prefix("// +default=") {
            // Others refer to constants of the package.
            default =
                if serde_json::from_str::<serde_json::Value>(marker).is_ok() { marker.into() } else { String::new() };
        }
        if let Some(name) = line.strip_prefix("type ").and_then(|l| l.strip_suffix(" struct{}")) {
            out.structs.insert(name.to_owned(), Vec::new());
        } else if let Some(name) = line.strip_prefix("type ").and_then(|l| l.strip_suffix(" struct {")) {
            out.structs.insert(name.to_owned(), Vec::new());
            open = Some(name.to_owned());
        } else if line == "}" {
            open = None;
        } else if let Some(lines) = open.as_ref().and_then(|name| out.structs.get_mut(name))
            && let Some(field) = field(line.trim())
        {
            lines.push(Line { default: std::mem::take(&mut default), ..field });
        }
    }
}

/// `PodPending PodPhase = "Pending"`: its type, and its value.
fn constant(line: &str) -> Option<(&str, &str)> {
    let (head, value) = line.split_once(" = ")?;
    let mut words = head.split_whitespace().filter(|w| *w != "const");
    let (_, of, None) = (words.next()?, words.next()?, words.next()) else { return None };
    Some((of, value.strip_prefix('"')?.split('"').next()?))
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
    let mut package = Package::default();
    let text = "type A struct {\n\tmetav1.TypeMeta `json:\",inline\"`\n\t// B is `one`.\n\
                \tB *int32 `json:\"b,omitempty\" protobuf:\"varint,3,opt,name=b\"`\n\tC string `json:\"c,omitempty\" protobuf:\"bytes,4,opt,name=c\"`\n\
                \t// +default=\"x\"\n\tD string `json:\"d\" protobuf:\"bytes,5,opt,name=d\"`\n\tE `json:\",inline\" protobuf:\"bytes,1,opt,name=e\"`\n}\n\
                type E struct {\n\tF bool `json:\"f,omitempty\" protobuf:\"varint,3,opt,name=f\"`\n\
                \tG `json:\",inline\" protobuf:\"bytes,2,opt,name=g\"`\n}\n\
                type G struct {\n\tH bool `json:\"h,omitempty\" protobuf:\"varint,3,opt,name=h\"`\n\t\
                Is []K `json:\"is,omitempty\" protobuf:\"bytes,4,rep,name=is,casttype=K\"`\n}\n\
                // K is one of two.\n// +enum\n// Not more.\ntype K string\n\nconst (\n\tOne K = \"1\"\n\tTwo  K = \"2\" // two\n\
                \tOther L = \"3\"\n)\ntype L string\n";
    parse(text, &mut package);
    let mut sources = Sources::new(PathBuf::new());
    sources.packages.insert("api/x/v1".into(), package);
    let tag =
        |number, inside: &[u16], omits_zero| Tag { number, inside: inside.to_vec(), omits_zero, ..Tag::default() };
    let b = Tag { pointer: true, ..tag(3, &[], false) };
    let d = Tag { always: true, default: "\"x\"".into(), ..tag(5, &[], false) };
    let (f, h) = (tag(3, &[1], true), tag(3, &[1, 2], true));
    let is = Tag { values: vec!["1".into(), "2".into()], ..tag(4, &[1, 2], true) };
    let expect = [("b", b), ("c", tag(4, &[], true)), ("d", d), ("f", f), ("h", h), ("is", is)];
    let expect: BTreeMap<String, Tag> = expect.into_iter().map(|(name, tag)| (name.to_owned(), tag)).collect();
    assert_eq!(sources.tags("io.k8s.api.x.v1.A"), Some(expect));
    assert_eq!(sources.tags("io.k8s.api.y.v1.A"), None);
}
