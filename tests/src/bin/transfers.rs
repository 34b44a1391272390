//! How fast attachments go up and come down, against what the machine can do in the same run: the hash alone, the disk
//! alone, and a plain file server. And what a hundred uploads at once cost in memory, and a small picture in CPU.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use bytes::Bytes;
use clap::Parser;
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use hdrhistogram::Histogram;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use reqwest::Body;
use ring::digest::{Context, SHA256};
use tidings_cli::UpFile;
use tidings_protocol::ContentHash;
use tidings_tests::Identity;
use tidings_tests::system_of_one::{self, memory, parent_and_cpu, pid_of};
use tower_http::services::ServeFile;

/// Handed to the socket at once, and written to the disk at once.
const PIECE_BYTES: usize = 1 << 20;
/// Of what is written past the cache, in memory.
const ALIGNMENT: usize = 4096;
/// Of one of many uploads at once.
const LARGE_BYTES: u64 = 20_000_000;
/// Of a small picture.
const PICTURE_BYTES: u64 = 100_000;
/// People who send pictures side by side: more would only wait for the two cores.
const PEOPLE: usize = 4;

/// Measures transfers of attachments.
#[derive(Debug, Parser)]
#[command(name = "transfers", max_term_width = 110)]
struct Args {
    /// The system's data go here, on the disk that is measured. It must not exist.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Bytes of the large file.
    #[arg(long, default_value_t = 1_000_000_000, value_name = "BYTES")]
    size: u64,

    /// How often each measurement is made; the median is told.
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,

    /// Uploads at once.
    #[arg(long, default_value_t = 100, value_name = "N")]
    uploads: usize,

    /// Small pictures.
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    pictures: usize,
}

/// That of the services, which are processes of this program.
#[global_allocator]
static ALLOCATOR: tidings_cli::Allocator = tidings_cli::Allocator;

fn main() -> ExitCode {
    // The services are processes of this program.
    if system_of_one::is_service() {
        return tidings_cli::main();
    }
    let args = Args::parse();
    tidings_service::start::install_crypto_provider();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    system_of_one::with(&args.dir, 1, async |system| {
        let media = Media {
            url: system.media.clone().context("media runs")?,
            secret: system.jwt_secret.clone(),
            http: reqwest::Client::new(),
        };
        measure(args, &system, &media).await
    })
    .await
}

async fn measure(args: &Args, system: &UpFile, media: &Media) -> anyhow::Result<()> {
    large(args, media).await?;
    let pid = pid_of(system, "media-1")?;
    at_once(args, media, pid).await?;
    pictures(args, system, media).await
}

struct Media {
    url: String,
    secret: String,
    http: reqwest::Client,
}

impl Media {
    /// Uploads content that nobody has uploaded before, and says its id.
    async fn post(&self, who: &Identity, content: &Content, body: Body) -> anyhow::Result<String> {
        let answer = self
            .http
            .post(format!("{}/v1/attachments?hash={}", self.url, content.hash))
            .bearer_auth(who.token(&self.secret))
            .header("content-type", "image/png")
            .header("content-length", content.size)
            .body(body)
            .send()
            .await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await?)?;
        let id = answer["attachmentId"].as_str();
        Ok(id.context("it has an id")?.to_owned())
    }

    /// Downloads it and says how many bytes came.
    async fn get(&self, who: &Identity, id: &str) -> anyhow::Result<u64> {
        let answer = self
            .http
            .get(format!("{}/v1/attachments/{id}", self.url))
            .bearer_auth(who.token(&self.secret))
            .send()
            .await?;
        read(answer).await
    }
}

async fn read(answer: reqwest::Response) -> anyhow::Result<u64> {
    ensure!(answer.status().is_success(), "{}", answer.status());
    let mut body = answer.bytes_stream();
    let mut bytes = 0;
    while let Some(piece) = body.next().await {
        bytes += piece?.len() as u64;
    }
    Ok(bytes)
}

/// Some content: a piece of random bytes again and again, behind a number of its own.
#[derive(Clone)]
struct Content {
    number: u64,
    size: u64,
    piece: Bytes,
    hash: String,
}

impl Content {
    fn new(size: u64) -> Self {
        let mut piece = vec![0; PIECE_BYTES];
        rand::fill(&mut piece[..]);
        let mut content = Self {
            number: rand::random(),
            size,
            piece: piece.into(),
            hash: String::new(),
        };
        content.hash = hash_of(&content);
        content
    }

    fn pieces(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let head = Bytes::copy_from_slice(&self.number.to_be_bytes());
        let piece = self.piece.clone();
        let mut left = self.size - head.len() as u64;
        std::iter::once(head).chain(std::iter::from_fn(move || {
            let next = piece.slice(..piece.len().min(left as usize));
            left -= next.len() as u64;
            (!next.is_empty()).then_some(next)
        }))
    }

    fn body(&self) -> Body {
        Body::wrap_stream(stream::iter(self.pieces().map(Ok::<_, std::convert::Infallible>)))
    }
}

/// The large file.
async fn large(args: &Args, media: &Media) -> anyhow::Result<()> {
    let alice = Identity::fresh("alice");
    let folder = args.dir.join("plain");
    std::fs::create_dir_all(&folder)?;
    let mut rates = Rates::default();
    for round in 0..args.rounds {
        let content = Content::new(args.size);
        let rate = |time: Duration| args.size as f64 / time.as_secs_f64() / 1e6;
        let hash = hash_alone(&content);
        rates.hash.push(rate(hash));

        // Before the upload and after it, and into a new file each time, as an upload is: what a virtual machine's disk
        // and memory take can change fivefold from one gigabyte to the next.
        let path = folder.join(format!("{round}"));
        let before = References::measure(&path, &content)?;
        std::fs::remove_file(&path)?;
        let began = Instant::now();
        let id = media.post(&alice, &content, content.body()).await?;
        let upload = began.elapsed();
        let after = References::measure(&path, &content)?;
        let through = (before.through_cache + after.through_cache) / 2;
        let past = (before.past_cache + after.past_cache) / 2;
        let both = (before.with_hash + after.with_hash) / 2;
        rates.through_cache.push(rate(through));
        rates.past_cache.push(rate(past));
        rates.with_hash.push(rate(both));
        rates.upload.push(rate(upload));
        let ratio = |time: Duration| time.as_secs_f64() / upload.as_secs_f64();
        rates.of_both.push(ratio(both));
        rates.of_through_cache.push(ratio(hash.max(through)));
        rates.of_past_cache.push(ratio(hash.max(past)));

        // Once from the disk, and once from memory. The plain file was written past the cache as the upload was.
        for (download, plain) in [
            (&mut rates.download, &mut rates.plain),
            (&mut rates.download_again, &mut rates.plain_again),
        ] {
            let began = Instant::now();
            ensure!(media.get(&alice, &id).await? == args.size, "it is not whole");
            download.push(rate(began.elapsed()));
            let began = Instant::now();
            ensure!(plain_get(media, &path).await? == args.size, "it is not whole");
            plain.push(rate(began.elapsed()));
        }
        std::fs::remove_file(&path)?;
    }
    rates.print(args);
    Ok(())
}

/// MB/s and ratios, one of each round.
#[derive(Default)]
struct Rates {
    hash: Vec<f64>,
    through_cache: Vec<f64>,
    past_cache: Vec<f64>,
    with_hash: Vec<f64>,
    upload: Vec<f64>,
    of_both: Vec<f64>,
    of_through_cache: Vec<f64>,
    of_past_cache: Vec<f64>,
    download: Vec<f64>,
    plain: Vec<f64>,
    download_again: Vec<f64>,
    plain_again: Vec<f64>,
}

impl Rates {
    fn print(&self, args: &Args) {
        println!(
            "{} MB, median of {} rounds, MB/s",
            args.size / 1_000_000,
            args.rounds
        );
        let line = |name: &str, rates: &[f64], beside: &str| {
            println!("  {name:<44} {:>6.0}{beside}", median(rates));
        };
        line("SHA-256 alone", &self.hash, "");
        line(
            "disk alone, through its cache, with fsync",
            &self.through_cache,
            "",
        );
        line("disk alone, past its cache, with fsync", &self.past_cache, "");
        line("hash and disk, in one thread", &self.with_hash, "");
        line("upload", &self.upload, "");
        for (ratios, of) in [
            (&self.of_both, "hash and disk in one thread"),
            (
                &self.of_through_cache,
                "the slower of hash and disk, through its cache",
            ),
            (&self.of_past_cache, "the slower of hash and disk, past its cache"),
        ] {
            let rounds: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
            println!("    {:.2} of {of} ({})", median(ratios), rounds.join(", "));
        }
        for (name, download, plain) in [
            ("download, from the disk", &self.download, &self.plain),
            ("download, from memory", &self.download_again, &self.plain_again),
        ] {
            let (of, plain) = (median(download) / median(plain), median(plain));
            let beside = format!("   {of:.2} of the plain file server ({plain:.0})");
            line(name, download, &beside);
        }
    }
}

fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// What the parts of an upload take when nobody sends it.
struct References {
    through_cache: Duration,
    past_cache: Duration,
    /// Each piece is hashed, then written past the cache.
    with_hash: Duration,
}

impl References {
    /// The file stays, and is not in the cache.
    fn measure(path: &Path, content: &Content) -> anyhow::Result<Self> {
        let other = path.with_extension("other");
        let through_cache = write(&other, OFlag::empty(), content, |_| {})?;
        std::fs::remove_file(&other)?;
        let mut hash = Context::new(&SHA256);
        let with_hash = write(&other, OFlag::O_DIRECT, content, |piece| hash.update(piece))?;
        std::fs::remove_file(&other)?;
        Ok(Self {
            through_cache,
            past_cache: write(path, OFlag::O_DIRECT, content, |_| {})?,
            with_hash,
        })
    }
}

fn hash_alone(content: &Content) -> Duration {
    let began = Instant::now();
    let mut hash = Context::new(&SHA256);
    content.pieces().for_each(|piece| hash.update(&piece));
    hash.finish();
    began.elapsed()
}

/// As many bytes as the content has. Says how long it takes.
fn write(
    path: &Path,
    flags: OFlag,
    content: &Content,
    mut beside: impl FnMut(&[u8]),
) -> anyhow::Result<Duration> {
    let mut piece = vec![0; PIECE_BYTES + ALIGNMENT];
    let start = piece.as_ptr().align_offset(ALIGNMENT);
    let piece = &mut piece[start..start + PIECE_BYTES];
    piece.copy_from_slice(&content.piece);
    let began = Instant::now();
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    let mut file = options.custom_flags(flags.bits()).open(path)?;
    let mut left = content.size as usize;
    while left >= PIECE_BYTES {
        beside(piece);
        file.write_all(piece)?;
        left -= PIECE_BYTES;
    }
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    file.write_all(&piece[..left])?;
    file.sync_all()?;
    Ok(began.elapsed())
}

/// Downloads a file from a server that does nothing else, in a process of its own as media is.
async fn plain_get(media: &Media, path: &Path) -> anyhow::Result<u64> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let routes = Router::new().route_service("/", ServeFile::new(path));
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
    let answer = media.http.get(url).send().await?;
    let bytes = read(answer).await;
    serving.abort();
    bytes
}

/// Many uploads at once, each of which has sent half before any sends the rest.
async fn at_once(args: &Args, media: &Media, pid: u32) -> anyhow::Result<()> {
    let base = memory(pid, "VmRSS:")?;
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak of memory")?;
    let half_way = std::sync::Arc::new(tokio::sync::Barrier::new(args.uploads));
    let content = Content::new(LARGE_BYTES);
    let uploads = (0..args.uploads).map(|number| {
        let mut content = content.clone();
        content.number = number as u64;
        let half_way = std::sync::Arc::clone(&half_way);
        async move {
            // Each has content of its own, which must be hashed anew.
            let content = Content {
                hash: hash_of(&content),
                ..content
            };
            let who = Identity::fresh("somebody");
            let half = content.size / 2 / PIECE_BYTES as u64;
            let pieces = content.pieces().enumerate();
            let body = stream::iter(pieces).then(move |(number, piece)| {
                let half_way = std::sync::Arc::clone(&half_way);
                async move {
                    if number as u64 == half {
                        half_way.wait().await;
                    }
                    Ok::<_, std::convert::Infallible>(piece)
                }
            });
            media.post(&who, &content, Body::wrap_stream(body)).await
        }
    });
    let began = Instant::now();
    for result in join_all(uploads).await {
        result?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let peak = memory(pid, "VmHWM:")?;
    println!(
        "{} uploads of {} MB at once: {seconds:.1} s; resident {:.1} MB before, {:.1} MB at most: {:.2} MB an upload",
        args.uploads,
        LARGE_BYTES / 1_000_000,
        base as f64 / 1e6,
        peak as f64 / 1e6,
        peak.saturating_sub(base) as f64 / 1e6 / args.uploads as f64,
    );
    Ok(())
}

fn hash_of(content: &Content) -> String {
    let mut hash = Context::new(&SHA256);
    content.pieces().for_each(|piece| hash.update(&piece));
    let hash = hash.finish();
    ContentHash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes")).to_string()
}

/// Small pictures, up and down.
async fn pictures(args: &Args, system: &UpFile, media: &Media) -> anyhow::Result<()> {
    let people: Vec<Identity> = (0..PEOPLE).map(|_| Identity::fresh("painter")).collect();
    let each = args.pictures / PEOPLE;
    let before = cpu(system)?;
    let began = Instant::now();
    let uploaded = join_all(people.iter().map(|who| async move {
        let mut ids = Vec::new();
        let mut latency = Histogram::<u64>::new(3)?;
        for _ in 0..each {
            let content = Content::new(PICTURE_BYTES);
            let began = Instant::now();
            ids.push(media.post(who, &content, content.body()).await?);
            latency.record(began.elapsed().as_micros() as u64)?;
        }
        anyhow::Ok((ids, latency))
    }))
    .await;
    tell("up", args.pictures, began.elapsed(), system, &before, &uploaded)?;

    let before = cpu(system)?;
    let began = Instant::now();
    let downloaded = join_all(people.iter().zip(&uploaded).map(|(who, uploaded)| async move {
        let mut latency = Histogram::<u64>::new(3)?;
        let ids = uploaded.as_ref().map_or(&[][..], |(ids, _)| &ids[..]);
        for id in ids {
            let began = Instant::now();
            media.get(who, id).await?;
            latency.record(began.elapsed().as_micros() as u64)?;
        }
        anyhow::Ok((Vec::new(), latency))
    }))
    .await;
    tell(
        "down",
        args.pictures,
        began.elapsed(),
        system,
        &before,
        &downloaded,
    )
}

type Measured = anyhow::Result<(Vec<String>, Histogram<u64>)>;

fn tell(
    way: &str,
    count: usize,
    took: Duration,
    system: &UpFile,
    before: &[f64; 2],
    measured: &[Measured],
) -> anyhow::Result<()> {
    let mut latency = Histogram::<u64>::new(3)?;
    for result in measured {
        let (_, one) = result.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        latency.add(one)?;
    }
    let after = cpu(system)?;
    let each = |index: usize| (after[index] - before[index]) * 1e6 / count as f64;
    println!(
        "{count} pictures of {} KB {way}, {PEOPLE} side by side: {:.0}/s; p50 {:.1} ms, p99 {:.1} ms; CPU a picture: media {:.0} us, Postgres {:.0} us",
        PICTURE_BYTES / 1000,
        count as f64 / took.as_secs_f64(),
        latency.value_at_quantile(0.5) as f64 / 1e3,
        latency.value_at_quantile(0.99) as f64 / 1e3,
        each(0),
        each(1),
    );
    Ok(())
}

/// Seconds of CPU so far: of media, and of Postgres with its children.
fn cpu(system: &UpFile) -> anyhow::Result<[f64; 2]> {
    let media = pid_of(system, "media-1")?;
    let postgres = pid_of(system, "postgres")?;
    let mut children = Duration::ZERO;
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end while it is looked at.
        if let Ok((parent, spent)) = parent_and_cpu(pid)
            && parent == postgres
        {
            children += spent;
        }
    }
    let (_, media) = parent_and_cpu(media)?;
    let (_, postgres) = parent_and_cpu(postgres)?;
    Ok([media, postgres + children].map(|spent| spent.as_secs_f64()))
}
