//! The settings of the store, for whoever writes, reads or removes attachments.

use std::path::{Path, PathBuf};

use url::Url;

use crate::keys::S3Keys;

/// Where attachments' bytes lie, for `#[command(flatten)]`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Attachments' bytes")]
pub struct BlobStoreConfig {
    /// A folder (`file:///var/lib/tidings/attachments`) or a bucket of an S3-compatible server
    /// (`s3://bucket/prefix`).
    ///
    /// All processes of a system must be given the same. The keys of S3 are the usual ones, `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`, or files that hold them, `AWS_ACCESS_KEY_ID_FILE` and
    /// `AWS_SECRET_ACCESS_KEY_FILE`, or what the machine's role gives.
    #[arg(
        long,
        env = "TIDINGS_BLOB_STORE",
        value_name = "URL",
        default_value = "file:///var/lib/tidings/attachments"
    )]
    pub blob_store: Url,
    /// The URL of an S3-compatible server other than Amazon's.
    #[arg(long, env = "TIDINGS_BLOB_STORE_ENDPOINT", value_name = "URL")]
    pub blob_store_endpoint: Option<Url>,
    /// The region of the bucket.
    #[arg(
        long,
        env = "TIDINGS_BLOB_STORE_REGION",
        value_name = "NAME",
        default_value = "us-east-1"
    )]
    pub blob_store_region: String,
    /// Where parts of uploads lie until S3 has them: 16 MiB for each upload at a time, in files without a name. Not
    /// used by a folder.
    ///
    /// Should be a disk: on many systems the folder for temporary files is memory.
    #[arg(
        long,
        env = "TIDINGS_BLOB_SPOOL_DIR",
        value_name = "DIR",
        default_value = "/var/tmp"
    )]
    pub blob_spool_dir: PathBuf,
    /// The keys of S3. `None`: the environment's.
    #[arg(skip)]
    pub blob_store_keys: Option<S3Keys>,
}

impl BlobStoreConfig {
    /// The settings of a folder, which must be an absolute path.
    pub fn folder(path: &Path) -> anyhow::Result<Self> {
        let blob_store = Url::from_directory_path(path)
            .map_err(|()| anyhow::anyhow!("{} is no absolute path", path.display()))?;
        Ok(Self {
            blob_store,
            blob_store_endpoint: None,
            blob_store_region: "us-east-1".to_owned(),
            blob_spool_dir: std::env::temp_dir(),
            blob_store_keys: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::BlobStore;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        store: BlobStoreConfig,
    }

    fn open(url: &str) -> Result<BlobStore, String> {
        let command =
            Command::try_parse_from(["x", "--blob-store", url]).map_err(|error| error.to_string())?;
        BlobStore::open(&command.store).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_folder_and_a_bucket_are_opened_and_nothing_else() {
        open("file:///nowhere").expect("nothing is touched");
        open("s3://bucket/a/prefix").expect("nothing is touched");
        for (url, reason) in [
            ("http://bucket", "neither file nor s3"),
            ("s3:///prefix", "no bucket"),
            ("/a/path", "invalid"),
        ] {
            let error = open(url).expect_err(url);
            assert!(error.contains(reason), "{error}");
        }
    }
}
