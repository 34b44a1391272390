//! A recorded set: a JSON file that people can read, too.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::samples::Sample;

/// What a version writes and reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Set {
    /// Names that several processes have to spell alike, by what they are.
    pub(super) names: BTreeMap<String, String>,
    /// Each message and value.
    pub(super) messages: Vec<Record>,
}

/// One message, or the value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// What it is: the type and the variant.
    pub(super) kind: String,
    /// Which of that kind.
    pub(super) name: String,
    /// Where it is published or put.
    pub(super) subject: String,
    /// With which headers.
    pub(super) headers: BTreeMap<String, String>,
    /// Whether this version writes it; otherwise it only reads it.
    pub(super) written: bool,
    /// Its bytes in hexadecimal, or the text of what is JSON.
    pub(super) payload: String,
    /// What it says.
    pub(super) value: Value,
}

impl Record {
    pub(super) fn of(sample: &(&str, Sample, Option<&str>)) -> Self {
        let (name, sample, read_only) = sample;
        let (subject, headers) = sample.addressed();
        let encoded = sample.encode();
        let payload = match read_only {
            Some(payload) => (*payload).to_owned(),
            None if encoded.starts_with(b"{") => String::from_utf8(encoded.to_vec()).expect("JSON is UTF-8"),
            None => hex(&encoded),
        };
        Self {
            kind: sample.kind(),
            name: (*name).to_owned(),
            subject,
            headers,
            written: read_only.is_none(),
            payload,
            value: sample.value(),
        }
    }

    /// The bytes.
    pub(super) fn payload(&self) -> Vec<u8> {
        if self.is_json() {
            return self.payload.clone().into_bytes();
        }
        let digits = self.payload.as_bytes().chunks(2);
        digits
            .map(|two| {
                let two = std::str::from_utf8(two).expect("hexadecimal digits are ASCII");
                u8::from_str_radix(two, 16).expect("two hexadecimal digits")
            })
            .collect()
    }

    fn is_json(&self) -> bool {
        self.payload.starts_with('{')
    }

    /// The type without the variant: what is read in one place.
    fn family(&self) -> &str {
        self.kind
            .rsplit_once(' ')
            .map_or(&*self.kind, |(family, _)| family)
    }

    /// Whether whoever reads `self` reads `other` as well.
    fn admits(&self, other: &Self) -> bool {
        if self.is_json() && other.is_json() {
            let json = |record: &Self| serde_json::from_str::<Value>(&record.payload).expect("it is JSON");
            return has_all(&json(other), &json(self));
        }
        self.payload == other.payload
    }
}

/// Whether `value` says everything that `asked` says, at every level; it may say more.
pub(super) fn has_all(value: &Value, asked: &Value) -> bool {
    match (value, asked) {
        (Value::Object(value), Value::Object(asked)) => asked
            .iter()
            .all(|(name, asked)| value.get(name).is_some_and(|value| has_all(value, asked))),
        (Value::Array(value), Value::Array(asked)) => {
            value.len() == asked.len()
                && value
                    .iter()
                    .zip(asked)
                    .all(|(value, asked)| has_all(value, asked))
        }
        (value, asked) => value == asked,
    }
}

/// What `new` says otherwise than `old`, or not any more; that it says more is no change.
pub(super) fn changes(old: &Set, new: &Set) -> Vec<String> {
    let mut changes = Vec::new();
    for (what, name) in &old.names {
        if new.names.get(what) != Some(name) {
            changes.push(what.clone());
        }
    }
    for record in &old.messages {
        let same = |other: &&Record| (&other.kind, &other.name) == (&record.kind, &record.name);
        if new.messages.iter().find(same) != Some(record) {
            changes.push(format!("{}, {}", record.kind, record.name));
        }
    }
    changes
}

/// What the version that wrote `new` writes although the one that wrote `old` does not read it.
pub(super) fn breaches(old: &Set, new: &Set) -> Vec<String> {
    let mut breaches: Vec<String> = Vec::new();
    for (what, name) in &old.names {
        if new.names.get(what).is_some_and(|now| now != name) {
            breaches.push(format!("{what} was {name}"));
        }
    }
    for record in new.messages.iter().filter(|record| record.written) {
        let mut told = |what: &str| breaches.push(format!("{}, {}: {what}", record.kind, record.name));
        let of_family = || {
            old.messages
                .iter()
                .filter(|before| before.family() == record.family())
        };
        if of_family().next().is_none() {
            continue;
        }
        let of_kind = || of_family().filter(|before| before.kind == record.kind);
        if of_kind().next().is_none() && !of_family().any(|before| before.admits(record)) {
            told("the version before does not know this kind");
            continue;
        }
        let before = of_kind().find(|before| before.written && before.name == record.name);
        let Some(before) = before else {
            continue;
        };
        if !of_family().any(|before| before.admits(record)) {
            told("the version before does not read these bytes");
        }
        if before.subject != record.subject {
            told("the version before has another subject");
        }
        let kept = |(name, value)| record.headers.get(name) == Some(value);
        if !before.headers.iter().all(kept) {
            told("a header is missing or says something else");
        }
    }
    breaches
}

impl Set {
    /// All sets of a folder, by number.
    pub(super) fn all(dir: &Path) -> Vec<(u32, Self)> {
        let mut sets: Vec<(u32, Self)> = std::fs::read_dir(dir)
            .expect("the folder is there")
            .map(|file| {
                let path = file.expect("the folder can be read").path();
                let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
                let number = number.unwrap_or_else(|| panic!("{}: not <number>.json", path.display()));
                let text = std::fs::read(&path).expect("it can be read");
                let set = serde_json::from_slice(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                (number, set)
            })
            .collect();
        sets.sort_by_key(|(number, _)| *number);
        sets
    }

    pub(super) fn write(&self, dir: &Path, number: u32) {
        let mut text = serde_json::to_string_pretty(self).expect("it has string names");
        text.push('\n');
        std::fs::write(dir.join(format!("{number}.json")), text).expect("the folder can be written");
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
}
