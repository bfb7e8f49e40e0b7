//! Settings of the memory.

use serde::{Deserialize, Serialize};

use crate::MemoryError;

/// What is done with remembered experiences when a request comes in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecallMode {
    /// Nothing; the weights answer alone.
    Off,
    /// The nearest experiences are handed out to be put into the prompt.
    Examples,
    /// A confident vote of the nearest experiences answers without generation.
    #[default]
    Answer,
}

/// Settings of the memory; the defaults were measured in `docs/experiments/0001-recall.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is done when a request comes in.
    pub recall: RecallMode,
    /// Nearest experiences that vote.
    pub neighbours: usize,
    /// Experiences that [`RecallMode::Examples`] hands out.
    pub examples: usize,
    /// Examples less similar than this are not handed out, 0 to 1.
    pub example_similarity: f32,
    /// Power that a similarity is raised to in the vote: larger listens to the nearest alone.
    pub vote_power: f32,
    /// Share of the panel (learned over all targets) in the vote, 0 to 1; the rest is the neighbours'.
    pub panel_share: f32,
    /// An answer is recalled only from an experience at least this similar, 0 to 1.
    pub answer_similarity: f32,
    /// An answer is recalled only with at least this confidence, 0 to 1.
    pub answer_confidence: f32,
    /// An answer is recalled only when its share of the vote leads the runner-up's by this, 0 to 1.
    pub answer_margin: f32,
    /// Factor on the similarity of an experience whose earlier turns differ from the request's.
    pub context_factor: f32,
    /// Share of the embedding's cosine in the similarity, 0 to 1; the rest is lexical. 0 saves the embedding.
    pub embedding_share: f32,
    /// Targets that the panel tells apart; the others are recalled through neighbours alone.
    pub panel_targets: usize,
    /// Numbers that the panel may hold in each of its two tables (4 bytes each).
    pub panel_cells: usize,
    /// Share of the prompts that is kept for the gate and never trained on, 0 to 0.5.
    pub held_out_share: f64,
    /// Most clusters that are made from embeddings.
    pub max_clusters: usize,
    /// Most clusters that are made from the clients' `task` names; later names go by embedding.
    pub max_task_clusters: usize,
    /// Cosine from which an experience joins a cluster, -1 to 1.
    pub cluster_similarity: f32,
    /// Longest target, characters.
    pub max_target_chars: usize,
    /// Longest prompt, characters of all turns together.
    pub max_prompt_chars: usize,
    /// Grade (0 to 100) from which feedback endorses an answer.
    pub endorse_score: f64,
    /// Grade (0 to 100) down to which feedback speaks against an answer.
    pub reject_score: f64,
    /// How much an endorsement counts beside a correction, 0 to 1.
    pub endorsement_strength: f32,
    /// The same for an answer that came from memory, on a prompt that is new.
    pub echo_strength: f32,
    /// The same for an answer that came from memory, on a prompt that is remembered already.
    pub repeat_echo_strength: f32,
    /// Most that one principal adds to one experience, in corrections.
    pub principal_limit: f32,
    /// Share of its strength that a principal's second and later word for the same target adds, 0 to 1.
    pub repeat_share: f32,
    /// Largest weight of an experience.
    pub max_weight: f32,
    /// Days after which a word counts half beside one of today, where targets contradict each other.
    pub contradiction_half_life_days: f64,
    /// Seed of the panel's order of practice.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            recall: RecallMode::Answer,
            neighbours: 24,
            examples: 4,
            example_similarity: 0.15,
            vote_power: 4.0,
            panel_share: 0.7,
            answer_similarity: 0.15,
            answer_confidence: 0.3,
            answer_margin: 0.03,
            context_factor: 0.7,
            embedding_share: 0.15,
            panel_targets: 512,
            panel_cells: 16_000_000,
            held_out_share: 0.15,
            max_clusters: 64,
            max_task_clusters: 1024,
            cluster_similarity: 0.75,
            max_target_chars: 16_000,
            max_prompt_chars: 64_000,
            endorse_score: 85.0,
            reject_score: 15.0,
            endorsement_strength: 0.7,
            echo_strength: 0.5,
            repeat_echo_strength: 0.1,
            principal_limit: 1.5,
            repeat_share: 0.25,
            max_weight: 4.0,
            contradiction_half_life_days: 60.0,
            seed: 0,
        }
    }
}

impl Config {
    /// Checks every setting against its range; the error names the first that is out of it.
    pub fn validate(&self) -> Result<(), MemoryError> {
        let unit = 0.0..=1.0;
        let ranges = [
            ("example_similarity", f64::from(self.example_similarity), unit.clone()),
            ("panel_share", f64::from(self.panel_share), unit.clone()),
            ("answer_similarity", f64::from(self.answer_similarity), unit.clone()),
            ("answer_confidence", f64::from(self.answer_confidence), unit.clone()),
            ("answer_margin", f64::from(self.answer_margin), unit.clone()),
            ("context_factor", f64::from(self.context_factor), unit.clone()),
            ("embedding_share", f64::from(self.embedding_share), unit.clone()),
            ("endorsement_strength", f64::from(self.endorsement_strength), unit.clone()),
            ("echo_strength", f64::from(self.echo_strength), unit.clone()),
            ("repeat_echo_strength", f64::from(self.repeat_echo_strength), unit.clone()),
            ("repeat_share", f64::from(self.repeat_share), unit),
            ("vote_power", f64::from(self.vote_power), 0.1..=64.0),
            ("held_out_share", self.held_out_share, 0.0..=0.5),
            ("cluster_similarity", f64::from(self.cluster_similarity), -1.0..=1.0),
            ("endorse_score", self.endorse_score, 0.0..=100.0),
            ("reject_score", self.reject_score, 0.0..=self.endorse_score),
            ("principal_limit", f64::from(self.principal_limit), 0.1..=1000.0),
            ("max_weight", f64::from(self.max_weight), 0.1..=1000.0),
            ("contradiction_half_life_days", self.contradiction_half_life_days, 0.001..=100_000.0),
            ("neighbours", self.neighbours as f64, 1.0..=256.0),
            ("examples", self.examples as f64, 0.0..=64.0),
            ("max_clusters", self.max_clusters as f64, 1.0..=65_536.0),
            ("panel_targets", self.panel_targets as f64, 0.0..=4096.0),
            ("max_target_chars", self.max_target_chars as f64, 1.0..=1e9),
            ("max_prompt_chars", self.max_prompt_chars as f64, 1.0..=1e9),
        ];
        match ranges.into_iter().find(|(_, value, range)| !range.contains(value)) {
            None => Ok(()),
            Some((setting, value, range)) => {
                Err(MemoryError::Setting { setting, value, low: *range.start(), high: *range.end() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range_and_a_wrong_share_is_named() {
        assert!(Config::default().validate().is_ok());
        let wrong = Config { held_out_share: 0.9, ..Config::default() };
        assert_eq!(
            wrong.validate().unwrap_err().to_string(),
            "`held_out_share` is 0.9, which is not between 0 and 0.5"
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"recal": "off"}"#).is_err());
        let config: Config = serde_json::from_str(r#"{"recall": "examples"}"#).unwrap();
        assert_eq!(config.recall, RecallMode::Examples);
    }
}
