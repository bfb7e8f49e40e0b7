use super::*;
use crate::demo::{
    display::tests::Shared,
    doubles::{ByHeart, stream},
    options::tests::parse,
};

async fn demo(arguments: &[&str]) -> (tempfile::TempDir, Arc<ByHeart>, Report, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = parse(
        &[&["--minutes", "0.3", "--runs", "3", "--feedback-share", "1", "--noise", "0"], arguments].concat(),
    );
    options.out = folder.path().join("out");
    let (double, server) = ByHeart::default().start().await;
    let out = Shared::default();
    let display = Display::new(Box::new(out.clone()), false, false);
    let report = run(&options, stream(3, 40), server, &display).await.unwrap();
    (folder, double, report, out.text())
}

#[tokio::test]
async fn a_whole_demo_is_played_measured_and_written() {
    let (folder, _, report, text) = demo(&["--with-upper-bound"]).await;
    assert_eq!(report.failed_requests, 0);
    assert_eq!(report.champion, VersionNumber(4));
    // v2 came before the spoiled v3; all but the spoiled one and the joint one were promoted.
    let verdicts: Vec<_> = report.versions.iter().map(|version| version.verdict).collect();
    let promote = Some("promote");
    assert_eq!(verdicts, [None, promote, promote, Some("reject"), promote, Some("inconclusive")]);
    let spoiled = report.spoiled_candidate.as_ref().unwrap();
    assert_eq!((spoiled.version, spoiled.verdict, spoiled.answered), (VersionNumber(3), Some("reject"), 0));
    let answered: u64 = report.versions.iter().map(|version| version.answered).sum();
    assert_eq!(answered, report.requests + report.measuring_requests);
    // The double learns by heart: nothing held out is ever right, and nothing is forgotten.
    assert_eq!((report.accuracy_weights, report.accuracy_with_recall), (Some(0.0), Some(0.0)));
    assert_eq!(report.accuracy_upper_bound, Some(0.0));
    assert_eq!(report.forgetting_max, Some(0.0));
    assert_eq!(report.retention.versions.iter().map(|version| version.0).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(report.retention.accuracy[1], [None, Some(0.0), Some(0.0)]);
    assert_eq!(report.training_tokens_per_s, Some(50.0));
    assert_eq!(report.accuracy_over_traffic.len(), 120);
    assert!(
        report.corrections_probed > 0 && report.correction_share_within_1s.is_some_and(|share| share > 0.5)
    );

    let json = std::fs::read_to_string(folder.path().join("out/report.json")).unwrap();
    assert_eq!(json, report.to_json().unwrap());
    let html = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(html.ends_with("</html>\n"));
    for line in ["task 1/3 t0: 40 requests", "v1 promote: Promote in a test", "v4 answers now, after v2"] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(text.contains("the spoiled candidate v3: reject, answered 0"));
}

#[tokio::test]
async fn without_recall_and_spoiling_the_report_says_not_measured() {
    let (_folder, double, report, _) = demo(&["--recall", "off", "--no-spoil", "--no-task"]).await;
    assert_eq!((report.accuracy_with_recall, report.correction_seconds_p50), (None, None));
    assert_eq!(report.measuring_requests, 0);
    assert!(report.spoiled_candidate.is_none() && report.accuracy_upper_bound.is_none());
    assert!(double.bodies().iter().all(|body| body.get("metadata").is_none()));
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named_before_anything_is_played() {
    let (double, server) = ByHeart::default().start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut options = parse(&[]);
    options.out = file.path().join("out");
    let display = Display::new(Box::new(Shared::default()), false, false);
    let error = run(&options, stream(1, 3), server, &display).await.unwrap_err();
    assert!(error.message.starts_with("cannot make the folder "), "{}", error.message);
    assert!(double.bodies().is_empty());
}
