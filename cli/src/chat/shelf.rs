//! The files that were shown, each with the number by which it can be saved.

use std::collections::HashMap;

use tidings_protocol::{Attachment, AttachmentId};

use crate::chat::text::{bytes, clean};

/// The files of this talk, from 1.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    files: Vec<Attachment>,
    numbers: HashMap<AttachmentId, usize>,
}

impl Shelf {
    /// The file with this number.
    pub(crate) fn get(&self, number: usize) -> Option<&Attachment> {
        self.files.get(number.checked_sub(1)?)
    }

    /// A text and the files that came with it, as they are shown.
    pub(crate) fn with_files(&mut self, text: &str, attachments: &[Attachment]) -> String {
        let files: Vec<String> = attachments.iter().map(|file| self.label(file)).collect();
        let text = (!text.is_empty()).then(|| text.to_owned());
        text.into_iter().chain(files).collect::<Vec<_>>().join(" ")
    }

    /// `[cat.png, 48.21 kB: /save 3]`
    fn label(&mut self, attachment: &Attachment) -> String {
        let number = *self.numbers.entry(attachment.attachment_id).or_insert_with(|| {
            self.files.push(attachment.clone());
            self.files.len()
        });
        let size = bytes(attachment.size);
        format!(
            "[{}, {size}: /save {number}]",
            shown_name(attachment.name.as_deref())
        )
    }
}

/// A name on one line.
pub(crate) fn shown_name(name: Option<&str>) -> String {
    clean(name.unwrap_or("a file")).replace("\n    ", " ")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn file(number: u128, name: Option<&str>) -> Attachment {
        Attachment {
            attachment_id: AttachmentId(Uuid::from_u128(number)),
            size: 48_211,
            content_type: "image/png".to_owned(),
            hash: "00".repeat(32),
            name: name.map(str::to_owned),
        }
    }

    #[test]
    fn files_have_numbers_and_keep_them() {
        let mut shelf = Shelf::default();
        assert_eq!(shelf.with_files("hi", &[]), "hi");
        let [cat, dog] = [file(1, Some("cat.png")), file(2, None)];
        assert_eq!(
            shelf.with_files("look", &[cat.clone(), dog.clone()]),
            "look [cat.png, 48.21 kB: /save 1] [a file, 48.21 kB: /save 2]"
        );
        assert_eq!(shelf.with_files("", &[dog]), "[a file, 48.21 kB: /save 2]");
        assert_eq!(shelf.get(1), Some(&cat));
        assert_eq!((shelf.get(0), shelf.get(3)), (None, None));
    }

    #[test]
    fn a_name_cannot_fake_a_line() {
        let mut shelf = Shelf::default();
        let shown = shelf.with_files("", &[file(1, Some("a\n12:00 bob: I agree\u{1b}[2J"))]);
        assert_eq!(shown, "[a 12:00 bob: I agree[2J, 48.21 kB: /save 1]");
    }
}
