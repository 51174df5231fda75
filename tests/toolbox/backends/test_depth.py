"""Tiny Depth Anything models from disk, of relative depth and of metres."""

import torch
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from m1lite.toolbox.backends.depth import DepthEstimator


def test_nearness_is_the_models_depth_within_each_picture(depth_folder):
    pixels = torch.randint(0, 256, (3, 3, 40, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    near = DepthEstimator(depth_folder, batch_size=2)(pixels)
    assert near.shape == (3, 40, 64)
    assert near.dtype == torch.float32
    torch.testing.assert_close(near.amin((1, 2)), torch.zeros(3))
    torch.testing.assert_close(near.amax((1, 2)), torch.ones(3))
    model, processor = (
        AutoModelForDepthEstimation.from_pretrained(depth_folder).eval(),
        AutoImageProcessor.from_pretrained(depth_folder),
    )
    for picture, found in zip(pixels, near, strict=True):
        with torch.no_grad():
            depth = model(**processor(images=[picture], return_tensors="pt")).predicted_depth
        depth = torch.nn.functional.interpolate(depth[None], (40, 64), mode="bicubic", align_corners=False)[0, 0]
        metric = model.config.depth_estimation_type == "metric"
        spread = (depth.max() - depth) if metric else (depth - depth.min())
        torch.testing.assert_close(found, spread / spread.max(), atol=1e-3, rtol=1e-3)
