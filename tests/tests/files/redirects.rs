//! Downloads that media sends to S3, by URLs that say who may.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use reqwest::redirect::Policy;
use tidings_stack::Seaweed;
use tidings_tests::System;

use crate::away::over;
use crate::support::seeded;
use crate::uploader::{File, Uploader, Way};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_goes_to_s3_and_needs_no_token_there() {
    let seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
    let (_, mut options) = over(&seaweed);
    options
        .settings
        .push(("TIDINGS_REDIRECT_DOWNLOADS", "on".to_owned()));
    let system = System::start(&options).await;
    let owner = Uploader::fresh(&system, "redirected");
    let (mut rng, _) = seeded("redirects");
    let file = File::random(&mut rng, 300_000);
    let id = owner.slot(&file, "a page").await;
    let answer = owner.upload(Way::Put, id, &file).await.expect("media answers");
    assert_eq!(answer.status, 201, "{answer:?}");

    // Who follows it has the bytes, whole and in part.
    let whole = owner.get(id).await.expect("both answer");
    assert!(
        whole.status == 200 && whole.body == file.bytes,
        "{}",
        whole.status
    );
    let stranger = Uploader::fresh(&system, "stranger");
    let refused = stranger.get(id).await.expect("media answers");
    assert_eq!(refused.status, 404, "{refused:?}");

    let http = reqwest::Client::builder().redirect(Policy::none()).build();
    let http = http.expect("nothing of it can fail");
    let media = system.up_file().media.expect("media runs");
    let redirect = http
        .get(format!("{media}/v1/attachments/{id}"))
        .bearer_auth(owner.token())
        .send()
        .await
        .expect("media answers");
    assert_eq!(redirect.status(), StatusCode::TEMPORARY_REDIRECT);
    let location = redirect.headers()[LOCATION].to_str().expect("it is a URL");
    assert!(location.starts_with(&seaweed.endpoint()), "it leads to S3");
    let part = http
        .get(location)
        .header("range", "bytes=100-199")
        .send()
        .await
        .expect("S3 answers");
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    let headers = part.headers().clone();
    assert_eq!(headers[CONTENT_TYPE], "application/octet-stream");
    let disposition = headers[CONTENT_DISPOSITION].to_str().expect("it is text");
    assert!(disposition.starts_with("attachment"), "{disposition}");
    assert_eq!(
        part.bytes().await.expect("it is whole"),
        file.bytes.slice(100..200)
    );
}
