//! What tensors are called: in Hugging Face's folders and in GGUF.

/// Tensors outside the blocks.
const OUTSIDE: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// Tensors of a block, without `model.layers.N` and `blk.N`.
const INSIDE: [(&str, &str); 14] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("post_self_attn_layernorm", "post_attention_norm"),
    ("post_mlp_layernorm", "post_ffw_norm"),
];

/// The frequencies' factors, which a folder keeps in its configuration.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Hugging Face's name of a tensor in a GGUF file; `None` for one that no family here has. With `fused`, gate and
/// up are one matrix, under the name that the second has elsewhere.
pub(super) fn to_folder(name: &str, fused: bool) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    if let Some((folder, _)) = OUTSIDE.iter().find(|(_, gguf)| *gguf == stem) {
        return Some(format!("{folder}.{kind}"));
    }
    let (layer, stem) = stem.strip_prefix("blk.")?.split_once('.')?;
    let other = if fused { "mlp.up_proj" } else { "mlp.gate_up_proj" };
    let (folder, _) = INSIDE.iter().find(|(folder, gguf)| *gguf == stem && *folder != other)?;
    Some(format!("model.layers.{}.{folder}.{kind}", number(layer)?))
}

/// The name in a GGUF file of a tensor in Hugging Face's form.
pub(super) fn to_gguf(name: &str) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    if let Some((_, gguf)) = OUTSIDE.iter().find(|(folder, _)| *folder == stem) {
        return Some(format!("{gguf}.{kind}"));
    }
    let (layer, stem) = stem.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, gguf) = INSIDE.iter().find(|(folder, _)| *folder == stem)?;
    Some(format!("blk.{}.{gguf}.{kind}", number(layer)?))
}

/// The number of a layer as it is written in one way only, so that two names never mean one tensor.
fn number(text: &str) -> Option<usize> {
    text.parse::<usize>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (folder, gguf) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("lm_head.weight", "output.weight"),
            ("model.layers.12.self_attn.q_proj.bias", "blk.12.attn_q.bias"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        ] {
            assert_eq!(to_folder(gguf, false).as_deref(), Some(folder));
            assert_eq!(to_gguf(folder).as_deref(), Some(gguf));
        }
        for name in
            ["blk.00.attn_q.weight", "blk.+1.attn_q.weight", "blk.1.attn_q", "blk.1.ssm_a.weight", "output"]
        {
            assert_eq!(to_folder(name, false), None, "{name}");
        }
        let up = |fused| to_folder("blk.3.ffn_up.weight", fused).unwrap();
        assert_eq!(up(true), "model.layers.3.mlp.gate_up_proj.weight");
        assert_eq!(up(false), "model.layers.3.mlp.up_proj.weight");
    }
}
