//! Types: what is wrong with an expression, shown as cel-go shows it.

/// One thing wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Where, in characters; `None` for the expression as a whole.
    pub at: Option<usize>,
    pub message: String,
}

impl Issue {
    #[must_use]
    pub fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at: Some(at), message: message.into() }
    }

    #[must_use]
    pub fn whole(message: impl Into<String>) -> Self {
        Self { at: None, message: message.into() }
    }
}

/// All issues in the order of the source, each with its line and a caret (`Error.ToDisplayString` of cel-go).
#[must_use]
pub fn render(source: &str, issues: &[Issue]) -> String {
    const SHOWN: usize = 100;
    let mut sorted: Vec<&Issue> = issues.iter().collect();
    sorted.sort_by_key(|issue| issue.at);
    let mut text: Vec<String> = sorted.iter().take(SHOWN).map(|issue| shown(source, issue)).collect();
    if sorted.len() > SHOWN {
        text.push(format!("{} more errors were truncated", sorted.len() - SHOWN));
    }
    text.join("\n")
}

fn shown(source: &str, issue: &Issue) -> String {
    let Some(at) = issue.at else { return format!("ERROR: <input>:-1:0: {}", issue.message) };
    let (mut line, mut column) = (1, 0);
    for c in source.chars().take(at) {
        if c == '\n' {
            (line, column) = (line + 1, 0);
        } else {
            column += 1;
        }
    }
    let mut text = format!("ERROR: <input>:{line}:{}: {}", column + 1, issue.message);
    if let Some(snippet) = source.split('\n').nth(line - 1) {
        let snippet = snippet.replace('\t', " ");
        text.push_str("\n | ");
        text.push_str(&snippet);
        text.push_str("\n | ");
        // Wide characters get wide dots, so that the caret stays below what it means.
        text.extend(snippet.chars().take(column).map(|c| if c.is_ascii() { '.' } else { '．' }));
        text.push(if snippet.chars().nth(column).is_some_and(|c| !c.is_ascii()) { '＾' } else { '^' });
    }
    text
}
