//! Candidates that were good first.

use super::*;

/// How many requests it is good for.
const GOOD: usize = 120;
/// How many requests it is good for once it is champion.
const GOOD_AS_CHAMPION: usize = 80;

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_was_good_and_then_disappoints_is_taken_back() {
    let mut policy = accuracy(MetricConfig::guard_difference(-5.0));
    policy.shadow.min_pairs = 0;
    policy.canary.min_requests = 5000;
    let (host, versions) = host(policy).await;
    let id = begin(&host, versions).await;
    let (answered, state) = converse_as(&host, id, |n| WORDS[usize::from(n < GOOD)]).await;
    let (ruling, reason) = outcome(&state);
    assert_eq!(ruling, Outcome::Reject, "{state:?}");
    assert!(reason.contains("accuracy") && reason.contains("over the last "), "{reason}");
    let bad = answered.len() - GOOD;
    assert!(bad < 400, "{bad} answers until it was taken back");
    assert_eq!(host.parts().residents.serving(&Alias::champion()), versions[0]);
    host.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_champion_that_was_good_while_it_was_watched_gives_its_place_back_when_it_disappoints() {
    let mut policy = accuracy(MetricConfig { absolute: Some(50.0), ..MetricConfig::default() });
    policy.shadow.min_pairs = 0;
    policy.watch.window_s = 600;
    let (host, versions) = host(policy).await;
    let id = begin(&host, versions).await;
    // It is good until it has been champion for a while, however long it takes to become that.
    let watched = std::cell::Cell::new(0_usize);
    let (answered, state) = converse_as(&host, id, |_| {
        let leads = host.parts().residents.serving(&Alias::champion()) == versions[1];
        watched.set(watched.get() + usize::from(leads));
        WORDS[usize::from(watched.get() < GOOD_AS_CHAMPION)]
    })
    .await;
    let (ruling, reason) = outcome(&state);
    assert_eq!(ruling, Outcome::Reject, "{state:?}");
    assert!(reason.contains("over the last "), "{reason}");
    // The very last may have been asked after the end that it then found.
    let asked = &answered[..answered.len() - 1];
    let first = asked.iter().rposition(|version| *version == versions[0]).unwrap();
    assert!(asked.len() - first > GOOD_AS_CHAMPION, "it was champion before it disappointed: {answered:?}");
    assert_eq!(host.parts().residents.serving(&Alias::champion()), versions[0]);
    host.close().await.unwrap();
}
