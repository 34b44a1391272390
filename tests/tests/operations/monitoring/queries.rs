//! What a query of Prometheus is made of, as far as a test must know.

/// The selectors of a query: each name of a metric, with its labels. A query that is about what is wrong finds nothing in a
/// healthy system, but what it asks of is there.
pub(super) fn selectors(query: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find(|letter: char| letter.is_ascii_alphabetic() || "_\"{".contains(letter)) {
        rest = &rest[at..];
        let end = match rest.as_bytes()[0] {
            // Labels that are nobody's here, and texts.
            b'{' => rest.find('}').map_or(rest.len(), |end| end + 1),
            b'"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            _ => rest
                .find(|letter: char| !letter.is_ascii_alphanumeric() && !"_:".contains(letter))
                .unwrap_or(rest.len()),
        };
        let (word, behind) = rest.split_at(end);
        rest = behind;
        if word != "up" && !word.starts_with("tidings_") && !word.starts_with("process_") {
            continue;
        }
        let labels = if behind.starts_with('{') {
            let (labels, behind) = behind.split_at(behind.find('}').map_or(behind.len(), |end| end + 1));
            rest = behind;
            labels
        } else {
            ""
        };
        found.push(format!("{word}{labels}"));
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn selectors_are_found() {
    let query = r#"sum by (le, tidings) (rate(tidings_a_bucket{code="tidings_x"}[5m])) / up > 0 or vector(0) + tidings_b"#;
    assert_eq!(
        selectors(query),
        [r#"tidings_a_bucket{code="tidings_x"}"#, "tidings_b", "up"]
    );
}
