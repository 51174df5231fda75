"""Tiny models with random weights, of the classes that people use, written to disk with processors made here."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    PreTrainedTokenizerFast,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoMaskDecoderConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoPromptEncoderConfig,
    Sam2VideoVideoProcessor,
    Sam2VisionConfig,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Processor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    SwinConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

WORDS = (
    *("a", "red", "blue", "green", "dog", "cat", "barks", "at", "the", "moon", "sleeps", "in", "house"),
    *("what", "is", "shown", "?"),
)


def word_tokenizer(**options):
    marks = ["<pad>", "<unk>", "<bos>", "<eos>"]
    vocabulary = {word: number for number, word in enumerate([*marks, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        **options,
    )


def save(model, processor, folder):
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


SIDES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def text_side(tokenizer):
    return {**SIDES, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}


def tiny_clip(folder):
    tokenizer = word_tokenizer()
    text = {**text_side(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = CLIPConfig(text_config=text, vision_config={**SIDES, "image_size": 32, "patch_size": 8}, projection_dim=24)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(CLIPModel(config), CLIPProcessor(pictures, tokenizer), folder)


def tiny_siglip(folder):
    tokenizer = word_tokenizer()
    config = SiglipConfig(text_config=text_side(tokenizer), vision_config={**SIDES, "image_size": 32, "patch_size": 8})
    pictures = SiglipImageProcessor(size={"height": 32, "width": 32})
    return save(SiglipModel(config), SiglipProcessor(pictures, tokenizer), folder)


def tiny_siglip2(folder):
    tokenizer = word_tokenizer()
    vision = {**SIDES, "num_patches": 16, "patch_size": 8}
    config = Siglip2Config(text_config=text_side(tokenizer), vision_config=vision)
    pictures = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    return save(Siglip2Model(config), Siglip2Processor(pictures, tokenizer), folder)


@pytest.fixture(scope="session", params=[tiny_clip, tiny_siglip, tiny_siglip2], ids=["clip", "siglip", "siglip2"])
def image_text_folder(request, tmp_path_factory):
    """Give the folder of a tiny model of each family, on disk as transformers loads it."""
    torch.manual_seed(0)
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture(scope="session")
def sentence_folder(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = word_tokenizer(model_input_names=["input_ids", "attention_mask"])
    config = BertConfig(**SIDES, vocab_size=len(tokenizer), max_position_embeddings=16)
    return save(BertModel(config), tokenizer, tmp_path_factory.mktemp("sentences"))


def tiny_owlv2(folder):
    tokenizer = word_tokenizer()
    text = {**text_side(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    vision = {**SIDES, "image_size": 32, "patch_size": 8}
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    pictures = Owlv2ImageProcessor(size={"height": 32, "width": 32})
    tokenizer.model_max_length = 16
    model = Owlv2ForObjectDetection(config)
    with torch.no_grad():  # boxes near the patches that they are of; else random weights put them to the edges
        model.box_head.dense2.weight.mul_(0.01)
    return save(model, Owlv2Processor(pictures, tokenizer), folder)


def tiny_grounding_dino(folder):
    tokenizer = word_tokenizer(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    text = BertConfig(**SIDES, vocab_size=len(tokenizer), max_position_embeddings=64)
    backbone = SwinConfig(
        image_size=64, patch_size=4, embed_dim=16, depths=[1, 1, 1], num_heads=[2, 2, 2], window_size=4,
        out_features=["stage2", "stage3"],
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
        num_queries=12, num_feature_levels=2, max_text_len=32,
    )  # fmt: skip
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    model = GroundingDinoForObjectDetection(config)
    return save(model, GroundingDinoProcessor(pictures, tokenizer), folder)


@pytest.fixture(scope="session", params=[tiny_owlv2, tiny_grounding_dino], ids=["owlv2", "grounding_dino"])
def detector_folder(request, tmp_path_factory):
    torch.manual_seed(0)
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture
def owlv2_folder(tmp_path):
    torch.manual_seed(0)
    return tiny_owlv2(tmp_path / "owlv2")


def tiny_depth(folder, kind):
    backbone = Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=8, depth_estimation_type=kind, max_depth=20,
    )  # fmt: skip
    model = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():  # random weights of the usual size give a flat map that the last rectifier cuts off
        for parameter in model.head.parameters():
            parameter.normal_(0.2, 0.5)
    pictures = DPTImageProcessor(size={"height": 56, "width": 56}, ensure_multiple_of=14)
    return save(model, pictures, folder)


@pytest.fixture(scope="session", params=["relative", "metric"])
def depth_folder(request, tmp_path_factory):
    torch.manual_seed(0)
    return tiny_depth(tmp_path_factory.mktemp(f"depth_{request.param}"), request.param)


@pytest.fixture
def depth_anything_folder(tmp_path):
    torch.manual_seed(0)
    return tiny_depth(tmp_path / "depth", "relative")


@pytest.fixture
def siglip_folder(tmp_path):
    torch.manual_seed(0)
    return tiny_siglip(tmp_path / "siglip")


def tiny_whisper(folder):
    """Write a Whisper that hears 2 seconds at a time and knows 52 pieces of words and 101 timestamps."""
    letters = [chr(code) for code in range(97, 123)]
    marks = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
    marks += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    vocabulary = {piece: number for number, piece in enumerate([*letters, *("Ġ" + letter for letter in letters)])}
    end = dict.fromkeys(("unk_token", "bos_token", "eos_token"), marks[0])
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[], **end, additional_special_tokens=marks[1:])
    tokenizer.add_tokens([f"<|{0.02 * step:.2f}|>" for step in range(101)])
    number = dict(zip(marks, tokenizer.convert_tokens_to_ids(marks), strict=True))
    config = WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=8, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        max_source_positions=100, max_target_positions=32, decoder_start_token_id=number["<|startoftranscript|>"],
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), number["<|endoftext|>"]),
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():  # random weights of the usual size say the same whatever they hear
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    model.generation_config.update(
        is_multilingual=True, lang_to_id={mark: number[mark] for mark in ("<|en|>", "<|de|>")},
        task_to_id={task: number[f"<|{task}|>"] for task in ("transcribe", "translate")},
        no_timestamps_token_id=number["<|notimestamps|>"], prev_sot_token_id=number["<|startofprev|>"],
        max_initial_timestamp_index=20, return_timestamps=False, max_length=32, allow_custom_entries=True,
    )  # fmt: skip
    model.generation_config._from_model_config = False  # else it is not read back
    return save(model, WhisperProcessor(WhisperFeatureExtractor(feature_size=8, chunk_length=2), tokenizer), folder)


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory):
    torch.manual_seed(0)
    return tiny_whisper(tmp_path_factory.mktemp("whisper"))


def tiny_sam2(folder):
    """Write a SAM 2 that sees 64 x 64 pixels; its memory has 64 channels, which the class does not let shrink."""
    backbone = Sam2HieraDetConfig(
        hidden_size=8, image_size=[64, 64], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2], window_size_per_stage=[4, 4, 4, 2], global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=128,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )  # fmt: skip
    prompts = {"hidden_size": 128, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    masks = {
        "hidden_size": 128,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "iou_head_depth": 2,
        "iou_head_hidden_dim": 32,
    }
    config = Sam2VideoConfig(
        vision_config=vision, prompt_encoder_config=Sam2VideoPromptEncoderConfig(**prompts),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(**masks), image_size=64, memory_attention_hidden_size=128,
        memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4], memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
    )  # fmt: skip
    size = {"height": 64, "width": 64}
    pictures = Sam2ImageProcessor(size=size, mask_size={"height": 16, "width": 16})
    model = Sam2VideoModel(config)
    with torch.no_grad():  # random weights of the usual size give masks of the whole picture
        for parameter in model.parameters():
            parameter.mul_(2 if parameter.dim() > 1 else 1)
    return save(model, Sam2VideoProcessor(pictures, Sam2VideoVideoProcessor(size=size)), folder)


@pytest.fixture(scope="session")
def sam2_folder(tmp_path_factory):
    torch.manual_seed(1)
    return tiny_sam2(tmp_path_factory.mktemp("sam2"))
