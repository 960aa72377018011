"""The SAM 2 network, module by module as the paper names them.

`SAM2Network` (network.sam2) holds them all under the keys of the official
checkpoints. SAM 2: Segment Anything in Images and Videos,
https://arxiv.org/abs/2408.00714.
"""

from sam2_model.network.sam2 import ImageFeatures, MaskPrediction, SAM2Network

__all__ = ["ImageFeatures", "MaskPrediction", "SAM2Network"]
