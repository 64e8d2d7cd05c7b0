"""The keys of config files beside weights: what another CLIP than ours would declare is refused by name, never skipped.

Facts: `CLIPVisionCfg` and `CLIPTextCfg` of open_clip; `CLIPConfig` of transformers.
"""

from collections.abc import Mapping
from typing import Any

from jax_promptmtl.core.errors import UserError

ANY = object()  # read elsewhere, told by the weights' shapes, or of training alone
CUSTOM = dict.fromkeys(
    ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), (None, False)
)
OPEN_CLIP_TOWER: dict[str, Any] = {
    **dict.fromkeys(("layers", "width", "mlp_ratio", "output_tokens"), ANY),
    **CUSTOM,
    "ls_init_value": (None,),
    "final_ln_after_pool": (None, False),
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}, {"eps": 1e-5}),
    "block_type": (None, "default"),
}
OPEN_CLIP_IMAGE = OPEN_CLIP_TOWER | {
    **dict.fromkeys(("head_width", "patch_size", "image_size", "patch_dropout", "attn_pooler_queries"), ANY),
    **dict.fromkeys(("attn_pooler_heads", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias"), ANY),
    **dict.fromkeys(("timm_drop", "timm_drop_path", "image_seq_len"), ANY),
    **dict.fromkeys(("attentional_pool", "no_ln_pre", "input_patchnorm", "global_average_pool"), (None, False)),
    "pos_embed_type": ("learnable",),
    "pool_type": ("tok",),
    "timm_model_name": (None, ""),
}
OPEN_CLIP_TEXT = OPEN_CLIP_TOWER | {
    **dict.fromkeys(("context_length", "vocab_size", "heads", "pad_id", "bos_id", "eos_id", "tiktoken_name"), ANY),
    **dict.fromkeys(("embed_cls", "no_causal_mask", "proj_bias", "variable_text"), (None, False)),
    **dict.fromkeys(("hf_model_name", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_type"), (None, "")),
    "tokenizer_kwargs": (None, {}),
    "text_arch": ("clip",),
    "pool_type": ("argmax",),
    "proj_type": ("linear",),
}
OPEN_CLIP_MODEL: dict[str, Any] = {
    **dict.fromkeys(("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"), ANY),
    **dict.fromkeys(("cast_dtype", "output_dict", "model_type"), ANY),
    **dict.fromkeys(("init_logit_bias", "multimodal_cfg", "nonscalar_logit_scale"), (None, False)),
}
HF_SHARED: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), ANY),
    **dict.fromkeys(("hidden_act", "layer_norm_eps", "projection_dim", "dropout", "attention_dropout"), ANY),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id"), ANY),
    "model_type": ("clip", "clip_text_model", "clip_vision_model"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "pruned_heads": (None, {}),
}
HF_IMAGE = HF_SHARED | {"image_size": ANY, "patch_size": ANY, "num_channels": (3,)}
HF_TEXT = HF_SHARED | {"max_position_embeddings": ANY, "vocab_size": ANY}
HF_MODEL: dict[str, Any] = {
    **dict.fromkeys(("text_config", "vision_config", "projection_dim", "logit_scale_init_value"), ANY),
    "model_type": ("clip",),
    "architectures": (None, ["CLIPModel"], ["CLIPTextModelWithProjection"], ["CLIPVisionModelWithProjection"]),
}
GENERIC = """
_name_or_path _commit_hash transformers_version torch_dtype dtype initializer_factor initializer_range architectures
finetuning_task id2label label2id problem_type task_specific_params tokenizer_class prefix is_encoder_decoder
tie_encoder_decoder tie_word_embeddings cross_attention_hidden_size chunk_size_feed_forward output_attentions
output_hidden_states output_scores return_dict return_dict_in_generate torchscript tf_legacy_loss use_bfloat16
use_cache gradient_checkpointing bad_words_ids begin_suppress_tokens suppress_tokens forced_bos_token_id
forced_eos_token_id decoder_start_token_id do_sample early_stopping diversity_penalty repetition_penalty
length_penalty encoder_no_repeat_ngram_size no_repeat_ngram_size exponential_decay_length_penalty max_length min_length
num_beams num_beam_groups num_return_sequences remove_invalid_values temperature top_k top_p typical_p
_attn_implementation_autoset attn_implementation custom_pipelines auto_map
"""
HF_GENERIC = set(
    GENERIC.split()
)  # of every config of transformers: names, initial values, training, generation of text


def refuse_others(hf: Mapping[str, Any], open_clip: Mapping[str, Any], where: str) -> None:
    """Refuse what config.json or open_clip_config.json declares of a model that is not ours.

    Args:
      hf: content of config.json; {} where there is none.
      open_clip: content of open_clip_config.json; {} where there is none.
      where: the folder, for messages.

    Raises:
      UserError: a key, or a value of a key, that is not understood; it is named.
    """
    if "vision_config" in hf:
        file, parts = f"{where}/config.json", (("vision_config", HF_IMAGE), ("text_config", HF_TEXT))
        require(hf, HF_MODEL, file, "", HF_GENERIC | {f"{name}_dict" for name, _ in parts})
        for name, known in parts:
            tower = hf.get(name) or {}
            require(tower, known, file, f"{name}.", HF_GENERIC)
            for key, value in (hf.get(f"{name}_dict") or {}).items():  # transformers lets these override
                if key in tower and tower[key] != value and key not in HF_GENERIC:
                    refuse(f"{name}_dict.{key}", value, file, [tower[key]])
    if model := open_clip.get("model_cfg"):
        file = f"{where}/open_clip_config.json"
        require(model, OPEN_CLIP_MODEL, file, "model_cfg.")
        require(model.get("vision_cfg", {}), OPEN_CLIP_IMAGE, file, "vision_cfg.")
        require(model.get("text_cfg", {}), OPEN_CLIP_TEXT, file, "text_cfg.")


def require(
    config: Mapping[str, Any], known: Mapping[str, Any], file: str, part: str, formal: set[str] | None = None
) -> None:
    """Refuse keys that are neither known nor formal, unless they are switched off, and values that are not legal."""
    for key, value in config.items():
        legal = known.get(key, ANY if key in (formal or ()) else (None, False))
        if legal is not ANY and value not in legal:
            refuse(part + key, value, file, legal if key in known else ())


def refuse(key: str, value: Any, file: str, legal: Any) -> None:
    """Refuse a key's value."""
    shown = " or ".join(repr(one) for one in legal if one is not None)
    what = f"legal: {shown}" if shown else "no such key is known"
    raise UserError(
        f"{file!r} declares {key} {str(value)[:60]!r}, a CLIP that is not read here ({what}); give other weights, or "
        "correct the file."
    )
