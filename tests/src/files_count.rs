//! Counts blobs against rows: whether the store of attachments has what Postgres says, and nothing else.
//!
//! May run while others upload and remove. Rows are read before and after the store, and only what is wrong by both is
//! told: a row is there before the first byte and until after the last, so an object that is seen has one of them.

use std::collections::HashMap;
use std::fmt;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use ring::digest::{self, SHA256};
use sqlx::{Connection as _, PgConnection, Row as _};
use tidings_blobs::{BlobError, BlobStore, BlobStoreConfig, StoredBlob};
use tidings_protocol::ContentHash;
use uuid::Uuid;

/// A row of `blobs`, and what `attachments` says of it.
const ROWS: &str = "SELECT b.blob_id, b.hash, b.size, b.state,
        EXISTS (SELECT FROM attachments a
                WHERE a.owner = b.owner AND a.hash = b.hash AND a.size = b.size AND a.gone_at IS NULL) AS wanted,
        EXISTS (SELECT FROM attachments a
                WHERE a.attachment_id = b.attachment_id AND a.gone_at IS NULL) AS has_slot
     FROM blobs b";

/// What Postgres says of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BlobRow {
    hash: Vec<u8>,
    size: u64,
    state: String,
    /// Whether an attachment of the same content is not gone.
    wanted: bool,
    /// Whether the slot that it is uploaded into is not gone.
    has_slot: bool,
}

/// By their ids.
type Rows = HashMap<Uuid, BlobRow>;

/// What is wrong with a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Complaint {
    /// Nobody will ever remove it, but for the search for orphans.
    NoRow { whole: bool },
    /// Postgres says it can be read.
    NoObject,
    /// It is whole, and not what was announced.
    Wrong(String),
    /// What is left of an upload that has come to its end.
    PartBesideWhole,
    /// No attachment will expire that it goes with.
    Unwanted,
    /// It should have gone with its slot.
    NoSlot,
}

/// Everything that is wrong with a store and the rows of its database; nothing, if all is well. Reads every object that
/// is whole, and compares its hash.
///
/// That an object is whole whose row says `uploading` is well: whoever finished it died before it could say so. Nobody
/// reads it, and it is right as well.
pub async fn count(store: &BlobStoreConfig, postgres_url: &str) -> anyhow::Result<Vec<String>> {
    let store = BlobStore::open(store)?;
    let mut postgres = PgConnection::connect(postgres_url)
        .await
        .context("Postgres does not answer")?;
    let before = rows(&mut postgres).await?;
    let listed: Vec<StoredBlob> = store.list().try_collect().await?;
    let mut contents = Vec::new();
    for (blob_id, row) in &before {
        let whole = listed.iter().any(|blob| blob.blob_id == *blob_id && blob.whole);
        if whole && row.state != "doomed" {
            contents.extend(wrong(&store, *blob_id, row).await?);
        }
    }
    let after = rows(&mut postgres).await?;
    postgres.close().await?;
    // What was doomed meanwhile may have been removed under the reader.
    let still_there = contents
        .into_iter()
        .filter(|(blob_id, _)| after.get(blob_id).is_some_and(|row| row.state != "doomed"));
    let complaints = judge(&before, &listed, &after).into_iter().chain(still_there);
    Ok(complaints
        .map(|(blob_id, complaint)| format!("blob {blob_id} {complaint}"))
        .collect())
}

async fn rows(postgres: &mut PgConnection) -> anyhow::Result<Rows> {
    let rows = sqlx::query(ROWS).fetch_all(postgres).await?;
    let mut found = Rows::new();
    for row in rows {
        let blob = BlobRow {
            hash: row.try_get("hash")?,
            size: row.try_get::<i64, _>("size")?.cast_unsigned(),
            state: row.try_get("state")?,
            wanted: row.try_get("wanted")?,
            has_slot: row.try_get("has_slot")?,
        };
        found.insert(row.try_get("blob_id")?, blob);
    }
    Ok(found)
}

/// Whether what is read of a blob is something else than was announced.
async fn wrong(store: &BlobStore, blob_id: Uuid, row: &BlobRow) -> anyhow::Result<Option<(Uuid, Complaint)>> {
    let read = async {
        let mut pieces = store.read(blob_id, 0..row.size).await?;
        let (mut digest, mut length) = (digest::Context::new(&SHA256), 0);
        while let Some(piece) = pieces.try_next().await? {
            digest.update(&piece);
            length += piece.len() as u64;
        }
        Ok((digest.finish(), length))
    };
    let reason = match read.await {
        Ok((digest, length)) if digest.as_ref() == row.hash && length == row.size => return Ok(None),
        Ok((_, length)) if length != row.size => format!("{length} bytes of {}", row.size),
        Ok((digest, _)) => {
            let bytes = digest.as_ref().try_into().context("SHA-256 has 32 bytes")?;
            format!("its hash is {}", ContentHash(bytes))
        }
        Err(error @ (BlobError::Missing | BlobError::Defect(_))) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    Ok(Some((blob_id, Complaint::Wrong(reason))))
}

fn judge(before: &Rows, listed: &[StoredBlob], after: &Rows) -> Vec<(Uuid, Complaint)> {
    let mut complaints = Vec::new();
    for StoredBlob { blob_id, whole, .. } in listed {
        if !before.contains_key(blob_id) && !after.contains_key(blob_id) {
            complaints.push((*blob_id, Complaint::NoRow { whole: *whole }));
        }
        // It was stored before anybody looked into the store.
        if !whole && before.get(blob_id).is_some_and(|row| row.state == "stored") {
            complaints.push((*blob_id, Complaint::PartBesideWhole));
        }
    }
    for (blob_id, row) in before {
        let Some(later) = after.get(blob_id).filter(|later| later.state == row.state) else {
            continue;
        };
        match row.state.as_str() {
            "stored" => {
                let whole = listed.iter().any(|blob| blob.blob_id == *blob_id && blob.whole);
                if !whole {
                    complaints.push((*blob_id, Complaint::NoObject));
                }
                if !row.wanted && !later.wanted {
                    complaints.push((*blob_id, Complaint::Unwanted));
                }
            }
            "uploading" if !row.has_slot && !later.has_slot => {
                complaints.push((*blob_id, Complaint::NoSlot));
            }
            _ => {}
        }
    }
    complaints
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRow { whole: true } => f.write_str("lies whole in the store and has no row"),
            Self::NoRow { whole: false } => f.write_str("lies in part in the store and has no row"),
            Self::NoObject => f.write_str("is stored, says its row, and no whole object is there"),
            Self::Wrong(reason) => write!(f, "is whole and not what was announced: {reason}"),
            Self::PartBesideWhole => f.write_str("is stored, and a part of its upload is there still"),
            Self::Unwanted => f.write_str("is stored, and no attachment wants it"),
            Self::NoSlot => f.write_str("is being uploaded into a slot that is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const ID: Uuid = Uuid::from_u128(1);

    fn row(state: &str) -> Rows {
        let row = BlobRow {
            hash: vec![0; 32],
            size: 1,
            state: state.to_owned(),
            wanted: true,
            has_slot: true,
        };
        Rows::from([(ID, row)])
    }

    fn changed(mut rows: Rows, change: impl Fn(&mut BlobRow)) -> Rows {
        rows.values_mut().for_each(change);
        rows
    }

    fn object(whole: bool) -> Vec<StoredBlob> {
        vec![StoredBlob {
            blob_id: ID,
            modified: SystemTime::UNIX_EPOCH,
            whole,
        }]
    }

    /// What is found where nobody does anything.
    fn found(rows: &Rows, listed: &[StoredBlob]) -> Vec<Complaint> {
        let complaints = judge(rows, listed, rows);
        complaints.into_iter().map(|(_, complaint)| complaint).collect()
    }

    #[test]
    fn what_belongs_together_is_well() {
        for (state, listed) in [
            ("stored", object(true)),
            ("doomed", object(true)),
            ("doomed", object(false)),
            ("doomed", vec![]),
            ("uploading", object(false)),
            ("uploading", vec![]),
            ("uploading", object(true)),
        ] {
            assert_eq!(found(&row(state), &listed), [], "{state} {listed:?}");
        }
    }

    #[test]
    fn what_does_not_is_told() {
        let none = Rows::new();
        assert_eq!(found(&none, &object(true)), [Complaint::NoRow { whole: true }]);
        assert_eq!(found(&none, &object(false)), [Complaint::NoRow { whole: false }]);
        assert_eq!(found(&row("stored"), &[]), [Complaint::NoObject]);
        assert_eq!(
            found(&row("stored"), &object(false)),
            [Complaint::PartBesideWhole, Complaint::NoObject]
        );
        let unwanted = changed(row("stored"), |row| row.wanted = false);
        assert_eq!(found(&unwanted, &object(true)), [Complaint::Unwanted]);
        let without_slot = changed(row("uploading"), |row| row.has_slot = false);
        assert_eq!(found(&without_slot, &object(false)), [Complaint::NoSlot]);
    }

    #[test]
    fn what_others_do_meanwhile_is_well() {
        let none = Rows::new();
        for (before, listed, after) in [
            (&none, object(true), &row("stored")),
            (&none, object(false), &row("uploading")),
            (&row("doomed"), object(true), &none),
            (&row("stored"), vec![], &row("doomed")),
            (&row("stored"), vec![], &none),
            (&row("uploading"), object(false), &row("stored")),
        ] {
            assert_eq!(
                judge(before, &listed, after),
                [],
                "{before:?} {listed:?} {after:?}"
            );
        }
    }
}
