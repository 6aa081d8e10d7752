//! What PromQL names. The dashboard's JSON and the rules' YAML enter; the metrics and labels of their expressions leave. Only
//! names are looked at: whether an expression means anything is Prometheus's own matter.

use std::collections::BTreeSet;

use serde_json::Value;

/// The files that hold expressions.
pub const FILES: [&str; 2] = ["observe/dashboard.json", "observe/rules.yml"];

/// What expressions name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub metrics: BTreeSet<String>,
    pub labels: BTreeSet<String>,
}

/// The text of every `expr` in a document; YAML, of which JSON is a part.
pub fn expressions(text: &str) -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|field| walk(field, found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(&serde_saphyr::from_str(text).expect("the document is YAML or JSON"), &mut found);
    found
}

/// The names in `expression`.
pub fn names(expression: &str) -> Names {
    const WORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "Inf"];
    const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let mut names = Names::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        let next = after.trim_start();
        rest = match first {
            '"' => skip(&rest[1..], '"').1,
            '[' => skip(&rest[1..], ']').1,
            '{' => {
                let (inside, after) = skip_selector(&rest[1..]);
                names.labels.extend(inside);
                after
            }
            _ if word.is_empty() => &rest[first.len_utf8()..],
            _ if GROUPINGS.contains(&word) && next.starts_with('(') => {
                let (inside, after) = skip(&next[1..], ')');
                names.labels.extend(inside.split(',').map(|label| label.trim().to_owned()));
                after
            }
            _ => {
                let is_called = ["(", "by ", "without "].iter().any(|call| next.starts_with(call));
                let is_name = !first.is_ascii_digit() && !WORDS.contains(&word) && !is_called;
                names.metrics.extend(is_name.then(|| word.to_owned()));
                after
            }
        };
    }
    names
}

/// What stands before `end`, and what after it.
fn skip(text: &str, end: char) -> (&str, &str) {
    text.split_once(end).unwrap_or((text, ""))
}

/// The labels of `label="value", …}`, and what stands behind it.
fn skip_selector(text: &str) -> (Vec<String>, &str) {
    let (mut labels, mut rest) = (Vec::new(), text);
    while let Some((label, after)) = rest.split_once(['=', '!', '}']) {
        if label.trim_matches([',', ' ']).is_empty() {
            return (labels, after);
        }
        labels.push(label.trim_matches([',', ' ']).to_owned());
        let value = after.split_once('"').map_or("", |(_, value)| value);
        rest = skip(value, '"').1;
        if let Some(after) = rest.trim_start().strip_prefix('}') {
            return (labels, after);
        }
    }
    (labels, rest)
}

#[test]
fn names_are_found_wherever_they_stand() {
    let found = names(
        "sum by (le, door) (rate(quad_a_bucket{x=~\"quad_no|{}\", y!=\"1\"}[5m])) > 0.5 * quad_b and on (source) \
         clamp_min(up{job=\"quad\"}, 1) unless quad_c offset 5m",
    );
    let set = |words: &str| words.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(found.metrics, set("quad_a_bucket quad_b up quad_c"));
    assert_eq!(found.labels, set("le door x y source job"));
}
