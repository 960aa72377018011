"""Masks on single images: encode once, then one cheap prediction a prompt.

The methods, arguments and returned values are those of Meta's
`SAM2ImagePredictor` (https://github.com/facebookresearch/sam2).
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sam2_model.frames import normalise
from sam2_model.masks import fill_holes, remove_specks, resize_logits
from sam2_model.meta_predictor import MetaPredictor
from sam2_model.network import ImageFeatures, SAM2Network
from sam2_model.network.mask_decoder import stable_single_mask
from sam2_model.prompts import (
    PREVIOUS_LOGIT_BOUND,
    as_cpu_tensor,
    box_corners,
    check_inside,
    points_and_labels,
)

_INSTEAD = {
    "_predict": "predict_torch",
    "_prep_prompts": "predict, which takes pixels, or predict_torch",
    "_transforms": "set_image and predict, which bring pictures and masks to size",
}
"""Names of Meta's class that are not answered, and what does the same."""


class SAM2ImagePredictor:
    """Holds one image's (or several images') features and answers prompts on them."""

    def __init__(
        self,
        sam_model: SAM2Network | MetaPredictor,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
    ) -> None:
        """
        Args:
            sam_model: from `build_sam2`, or a video predictor, whose network is shared.
            mask_threshold: logits above it are inside.
            max_hole_area: fill holes of up to so many low-resolution pixels.
            max_sprinkle_area: remove specks of up to so many.

        Raises:
            ValueError: `sam_model` is neither.
        """
        if not isinstance(sam_model, (SAM2Network, MetaPredictor)):
            raise ValueError(
                f"sam_model is a {type(sam_model).__name__}, must be what build_sam2 or "
                "build_sam2_video_predictor returns"
            )
        self._made_of = sam_model
        self.model = sam_model.model if isinstance(sam_model, MetaPredictor) else sam_model
        self.mask_threshold = mask_threshold
        self.max_hole_area = int(max_hole_area)
        self.max_sprinkle_area = int(max_sprinkle_area)
        self.reset_predictor()

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs) -> SAM2ImagePredictor:
        """The predictor of a model on the Hugging Face hub; arguments of both."""
        from sam2_model.build import build_sam2_hf

        names = ("mask_threshold", "max_hole_area", "max_sprinkle_area")
        own = {name: kwargs.pop(name) for name in names if name in kwargs}
        return cls(build_sam2_hf(model_id, **kwargs), **own)

    def __getattr__(self, name: str):
        why = f": use {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}{why}", name=name, obj=self
        )

    @property
    def device(self) -> torch.device:
        return self.model.device

    def reset_predictor(self) -> None:
        """Forget the image."""
        self._image_features: ImageFeatures | None = None
        self._orig_hw: list[tuple[int, int]] = []
        self._is_batch = False

    def set_image(self, image: np.ndarray | Image.Image) -> None:
        """Encode an image: (H, W, 3) uint8 RGB, or a PIL image."""
        self._encode([image])
        self._is_batch = False

    def set_image_batch(self, image_list: Sequence[np.ndarray | Image.Image]) -> None:
        """Encode several images, of any sizes, for `predict_batch`."""
        if not image_list:
            raise ValueError("image_list is empty: there is nothing to encode")
        self._encode(list(image_list))
        self._is_batch = True

    @torch.inference_mode()
    def _encode(self, images: list) -> None:
        self.reset_predictor()
        pictures = [_as_rgb(image) for image in images]
        size = self.model.image_size
        batch = torch.cat([_resize_image(picture, size, self.device) for picture in pictures])
        features = self.model.encode_image(batch)
        top = self.model.without_memory(features.top)
        self._image_features = ImageFeatures(top, features.high_res)
        self._orig_hw = [picture.shape[:2] for picture in pictures]

    @property
    def _is_image_set(self) -> bool:
        return self._image_features is not None

    @property
    def _features(self) -> dict | None:
        """The encoded images under the names that scripts for Meta's predictor read."""
        if self._image_features is None:
            return None
        return {
            "image_embed": self._image_features.top,  # (N, C, S / 16, S / 16)
            "high_res_feats": list(self._image_features.high_res),
        }

    def get_image_embedding(self) -> torch.Tensor:
        """The encoded images, (N, C, H, W)."""
        return self._encoded().top

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks for prompts on the image of `set_image`.

        Args:
            point_coords: (P, 2) x and y in pixels, or (B, P, 2) for B objects.
            point_labels: (P,) or (B, P): 1 inside, 0 outside, -1 ignored.
            box: (4,) or (B, 4): x_min, y_min, x_max, y_max.
            mask_input: (1, S / 4, S / 4) logits an earlier prediction returned.
            multimask_output: three candidates instead of one.
            return_logits: logits instead of masks.
            normalize_coords: coordinates are pixels; False: shares of the image.

        Returns:
            Masks (M, H, W) float32, 0 or 1 (or logits), expected IoUs (M,),
            low-resolution logits (M, S / 4, S / 4); with a leading B for
            several objects.

        Raises:
            RuntimeError: no image is set.
            ValueError: prompts of the wrong shape, a point outside the image or
                not finite, an unknown label, a box whose maximum is under its
                minimum.
        """
        return self._predict_image(
            0, point_coords, point_labels, box, mask_input,
            multimask_output, return_logits, normalize_coords,
        )

    def predict_batch(
        self,
        point_coords_batch: Sequence[np.ndarray] | None = None,
        point_labels_batch: Sequence[np.ndarray] | None = None,
        box_batch: Sequence[np.ndarray] | None = None,
        mask_input_batch: Sequence[np.ndarray] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """`predict` for each image of `set_image_batch`; every argument a list, one item an image."""
        if not self._is_batch:
            raise RuntimeError("predict_batch needs set_image_batch first")
        count = len(self._orig_hw)
        arguments = {
            "point_coords_batch": point_coords_batch,
            "point_labels_batch": point_labels_batch,
            "box_batch": box_batch,
            "mask_input_batch": mask_input_batch,
        }
        for name, values in arguments.items():
            if values is not None and len(values) != count:
                raise ValueError(f"{name} has {len(values)} items for {count} images")
        columns = [
            [None] * count if values is None else values for values in arguments.values()
        ]
        answers = [
            self._predict_image(
                index, *prompts, multimask_output, return_logits, normalize_coords
            )
            for index, prompts in enumerate(zip(*columns))
        ]
        masks, ious, low_res = zip(*answers)
        return list(masks), list(ious), list(low_res)

    def _predict_image(
        self, index, points, labels, box, mask_input, multimask, return_logits, normalize
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        coords, point_labels, boxes, mask_logits = self._prompt_tensors(
            index, points, labels, box, mask_input, normalize
        )
        masks, ious, low_res = self.predict_torch(
            coords, point_labels, boxes, mask_logits, multimask, return_logits, img_idx=index
        )
        if len(masks) == 1:
            masks, ious, low_res = masks[0], ious[0], low_res[0]
        # Masks as numbers, as Meta's: scripts compute with them.
        return masks.float().cpu().numpy(), ious.float().cpu().numpy(), low_res.cpu().numpy()

    def _prompt_tensors(self, index, points, labels, box, mask_input, normalize):
        self._encoded()
        if (points is None) != (labels is None):
            raise ValueError("point_coords and point_labels must be given together")
        height, width = self._orig_hw[index]
        size = torch.tensor([width, height] if normalize else [1, 1], dtype=torch.float32)
        side = self.model.image_size
        coords = point_labels = boxes = mask_logits = None
        if points is not None:
            coords, point_labels = points_and_labels(points, labels)
            check_inside(coords, point_labels, size)
            coords = (coords / size * side).to(self.device)
            point_labels = point_labels.to(self.device)
        if box is not None:
            boxes = (box_corners(box) / size * side).to(self.device)
        if mask_input is not None:
            mask_logits = as_cpu_tensor(mask_input, torch.float32)
            mask_logits = mask_logits[None] if mask_logits.dim() == 3 else mask_logits
            low_res = self.model.config.low_res_mask_size
            if mask_logits.dim() != 4 or mask_logits.shape[1:] != (1, low_res, low_res):
                raise ValueError(
                    f"mask_input has shape {tuple(mask_logits.shape)}, must be "
                    f"(1, {low_res}, {low_res}), or (B, 1, {low_res}, {low_res}) for B objects"
                )
            mask_logits = mask_logits.to(self.device)
        return coords, point_labels, boxes, mask_logits

    @torch.inference_mode()
    def predict_torch(
        self,
        point_coords: torch.Tensor | None,
        point_labels: torch.Tensor | None,
        boxes: torch.Tensor | None = None,
        mask_input: torch.Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        img_idx: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`predict` on tensors, B objects at once.

        Args:
            point_coords: (B, P, 2) pixels of the model's image (side S).
            point_labels: (B, P). boxes: (B, 4) or (B, 2, 2), likewise.
            mask_input: (B, 1, S / 4, S / 4) logits.
            img_idx: which image of `set_image_batch`.

        Returns:
            (B, M, H, W), (B, M), (B, M, S / 4, S / 4), on the model's device.
        """
        features = self._encoded()[slice(img_idx, img_idx + 1)]
        coords, labels = _with_boxes(point_coords, point_labels, boxes)
        logits, ious, _, _ = self.model.decode(
            features.top, features.high_res, coords, labels, mask_input
        )
        if multimask_output:
            logits, ious = logits[:, 1:], ious[:, 1:]
        elif self._made_of.stability_fallback:
            logits, ious = stable_single_mask(logits, ious)
        else:
            logits, ious = logits[:, :1], ious[:, :1]
        logits = logits.float()
        threshold = self.mask_threshold
        mended = fill_holes(logits, self.max_hole_area, threshold=threshold, value=threshold + 10)
        mended = remove_specks(
            mended, self.max_sprinkle_area, threshold=threshold, value=threshold - 10
        )
        masks = resize_logits(mended, self._orig_hw[img_idx])
        bound = PREVIOUS_LOGIT_BOUND
        return (
            masks if return_logits else masks > threshold,
            ious,
            logits.clamp(-bound, bound),
        )

    def _encoded(self) -> ImageFeatures:
        if self._image_features is None:
            raise RuntimeError("no image is set: call set_image or set_image_batch first")
        return self._image_features


def _as_rgb(image: np.ndarray | Image.Image) -> np.ndarray:
    """(H, W, 3) uint8."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    picture = np.asarray(image)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(
            f"image has shape {picture.shape} and dtype {picture.dtype}, "
            "must be (H, W, 3) uint8 in RGB order, or a PIL image"
        )
    if 0 in picture.shape:
        raise ValueError(f"image has shape {picture.shape}: it is empty")
    return picture


def _resize_image(picture: np.ndarray, size: int, device: torch.device) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, S, S) float32, bilinear with antialiasing, normalised.

    Still images are resized in floating point, as Meta's image predictor does;
    video frames in 8 bits (`frames.resize_frame`), as its video loader does.
    """
    # A copy: torch warns of memory that it may not write to, as PIL's is.
    tensor = torch.from_numpy(np.array(picture, order="C")).to(device)
    tensor = tensor.permute(2, 0, 1)[None].float()
    resized = F.interpolate(
        tensor, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return normalise(resized)


def _with_boxes(coords, labels, boxes):
    """Box corners before the points, as labels 2 and 3."""
    if boxes is None:
        return coords, labels
    corners = boxes.reshape(-1, 2, 2)
    corner_labels = torch.tensor([[2, 3]], device=corners.device).expand(len(corners), 2)
    if coords is None:
        return corners, corner_labels
    if len(coords) != len(corners):
        raise ValueError(f"{len(corners)} boxes for points of {len(coords)} objects")
    return torch.cat((corners, coords), dim=1), torch.cat((corner_labels, labels), dim=1)
