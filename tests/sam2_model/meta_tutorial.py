"""A script as people write it after Meta's video tutorial, with only its imports changed.

Written for `from sam2.sam2_video_predictor import SAM2VideoPredictor`. Run by
`test_meta_tutorial.py`; also by hand:

    python -m tests.sam2_model.meta_tutorial FOLDER_OF_JPEGS X Y OUTPUT_FOLDER
"""

import os
import sys

import numpy as np
import torch
from PIL import Image

from sam2_model import SAM2VideoPredictor


def main(video_dir, x, y, output_dir):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = SAM2VideoPredictor.from_pretrained("facebook/sam2.1-hiera-tiny", device=device)

    frame_names = [
        name for name in os.listdir(video_dir)
        if os.path.splitext(name)[-1] in [".jpg", ".jpeg", ".JPG", ".JPEG"]
    ]
    frame_names.sort(key=lambda name: int(os.path.splitext(name)[0]))

    inference_state = predictor.init_state(video_path=video_dir)
    predictor.reset_state(inference_state)

    # One positive click at (x, y) on the first frame.
    points = np.array([[x, y]], dtype=np.float32)
    labels = np.array([1], np.int32)
    _, out_obj_ids, out_mask_logits = predictor.add_new_points_or_box(
        inference_state=inference_state,
        frame_idx=0,
        obj_id=1,
        points=points,
        labels=labels,
    )
    first_mask = (out_mask_logits[0] > 0.0).cpu().numpy()

    # The masks of every frame: {frame: {object: (1, H, W) bool}}.
    video_segments = {}
    for out_frame_idx, out_obj_ids, out_mask_logits in predictor.propagate_in_video(
        inference_state
    ):
        video_segments[out_frame_idx] = {
            out_obj_id: (out_mask_logits[i] > 0.0).cpu().numpy()
            for i, out_obj_id in enumerate(out_obj_ids)
        }

    os.makedirs(output_dir, exist_ok=True)
    for out_frame_idx in range(0, len(frame_names), 3):
        for out_obj_id, out_mask in video_segments[out_frame_idx].items():
            h, w = out_mask.shape[-2:]
            mask_image = out_mask.reshape(h, w, 1) * np.array([30, 144, 255]).reshape(1, 1, -1)
            name = f"{os.path.splitext(frame_names[out_frame_idx])[0]}_{out_obj_id}.png"
            Image.fromarray(mask_image.astype(np.uint8)).save(os.path.join(output_dir, name))
    return first_mask, video_segments


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
