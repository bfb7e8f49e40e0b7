//! The budget decides how often the data are passed over.

use autoglm_domain::HyperParameters;
use autoglm_train::{Budget, Config, PlanConfig, fill, plan};

use crate::experience;

/// `count` examples of 28 characters: 28 / 3.5 + 12 = 20 tokens each.
fn filled(count: u128, hyper: &HyperParameters, budget: &Budget) -> HyperParameters {
    let new = (0..count)
        .map(|id| {
            let mut experience = experience(id, 0, "target");
            experience.prompt[0].content = "x".repeat(22);
            experience
        })
        .collect();
    fill(hyper, budget, &plan(new, vec![], &PlanConfig::default(), 1).unwrap())
}

#[test]
fn passes_follow_from_size_and_steps() {
    let hyper = HyperParameters { batch_tokens: 1000, passes: 3.0, ..HyperParameters::default() };
    let budget = Budget { seconds: 60.0, min_steps: 30, max_passes: 20.0, ..Budget::default() };
    let passes = |count| filled(count, &hyper, &budget).passes;
    assert_eq!(passes(1000), 3.0, "20,000 tokens: 60 steps, as wished");
    assert_eq!(passes(100), 15.0, "2,000 tokens: 30 steps take 15 passes");
    assert_eq!(passes(10), 20.0, "200 tokens: at most 20 passes");
    assert_eq!(filled(1000, &hyper, &budget).max_seconds, 60.0);
    let unlimited = Budget { seconds: 0.0, ..budget.clone() };
    assert_eq!(filled(1000, &hyper, &unlimited).max_seconds, 0.0);
    let fixed = HyperParameters { steps: 7, ..hyper.clone() };
    let found = filled(10, &fixed, &budget);
    assert_eq!((found.steps, found.passes, found.max_seconds), (7, 3.0, 60.0));
}

#[test]
fn settings_read_back_and_unknown_keys_are_refused() {
    let config = Config::default();
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["triggers"]["schedule"], "daily 03:00");
    assert_eq!(serde_json::from_value::<Config>(json).unwrap(), config);
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), config);
    for bad in [
        r#"{"trigers": {}}"#,
        r#"{"plan": {"replay": 1}}"#,
        r#"{"plan": {"strategy": "ewc"}}"#,
        r#"{"triggers": {"schedule": "nightly"}}"#,
        r#"{"budget": {"minutes": 1}}"#,
    ] {
        assert!(serde_json::from_str::<Config>(bad).is_err(), "{bad}");
    }
}
