"""Training clips composed from raw material, with exact masks.

A clip is a small scene drawn at the final resolution: a background seen by a moving camera,
and layers (objects, look-alikes, occluders, shadows) that follow smooth paths, each a
picture with alpha warped by a homography and, for some, a wobbling displacement. An "owner"
map is drawn along with the colours: the number of the object that a pixel belongs to, where
the front-most layer with alpha above 0.5 wins. Masks come from that map, so they are
disjoint and end where something occludes the object.

Everything is a function of continuous time in frames, so motion blur is an average over a
few moments while the shutter is open. Everything random comes from one numpy generator, so
a seed gives the same bytes again.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.nn import functional as F

from sam2_model.training.materials import (
    Materials,
    draw_object,
    draw_texture,
    random_colour,
    shade,
    to_uint8,
)

UNLABELLED = 0
"""In an owner map: background, or a layer that is nobody's object."""
KEEP_OWNER = -1
"""A layer that changes colours but occludes nothing: a shadow."""
MAX_ATTEMPTS = 20
PIXELS_PER_MOMENT = 2.5
"""Motion blur: the most that something moves between two of the moments it is drawn at."""


@dataclass(frozen=True)
class ClipSettings:
    """What a clip looks like. Probabilities are for each object or each clip, as they say."""

    image_size_hw: tuple[int, int] = (256, 256)
    frame_count: int = 4
    max_objects: int = 4
    """Objects placed in a composed clip; those unseen on the first frame are not listed."""
    object_side_range: tuple[float, float] = (0.05, 0.9)
    """An object's longer side as a fraction of the frame's shorter side."""
    typical_object_side: float = 0.42
    """The median of that fraction."""
    min_area_fraction: float = 0.001
    """Visible part of the frame that an object needs on the first frame to be listed."""
    min_segment_fraction: float = 0.002
    """Part of the crop that a real segment needs to be listed."""

    deform: float = 0.4
    """Each object: wobbles."""
    fast_motion: float = 0.2
    """Each object: moves a few times as fast."""
    screen_locked: float = 0.3
    """Each object: the camera follows it."""
    leave: float = 0.12
    """Each object: leaves the frame; it may come back."""
    partly_outside: float = 0.12
    """Each object: starts across the frame's border."""
    low_contrast: float = 0.25
    """Each object: colours pulled towards the background behind it."""
    object_blur: float = 0.12
    """Each object: out of focus."""
    shadow: float = 0.25
    """Each object: casts a soft shadow."""
    camera_motion: float = 0.75
    """Each clip."""
    distractor: float = 0.35
    """Each clip: one to three copies of an object in other poses, some of them objects."""
    occluder: float = 0.4
    """Each clip: one or two things pass in front; they are not objects."""
    motion_blur: float = 0.15
    """Each clip."""
    lighting: float = 0.35
    """Each clip: exposure, gamma and colour cast change over time."""
    frame_blur: float = 0.1
    """Each clip."""
    noise: float = 0.3
    """Each clip: Gaussian noise, new on each frame."""
    jpeg: float = 0.3
    """Each clip: JPEG compression."""
    overlays: float = 0.5
    """Each warped clip: one or two composed objects move over the photograph."""
    device: str = "cpu"
    """Where frames are put together. The same seed gives the same scene on any device,
    and the same bytes on one kind of device."""

    def __post_init__(self) -> None:
        if min(self.image_size_hw) < 16:
            raise ValueError(f"image_size_hw must be at least 16 x 16, got {self.image_size_hw}")
        if self.frame_count < 1:
            raise ValueError(f"frame_count must be at least 1, got {self.frame_count}")
        if self.max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {self.max_objects}")


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames and the visible part of every object on each of them."""

    frames: np.ndarray
    """(T, H, W, 3) uint8, RGB."""
    masks: np.ndarray
    """(T, N, H, W) bool, disjoint, N at least 1; every object is visible on frame 0."""


# --------------------------------------------------------------------------- movement

# The columns of a pose. Lengths are in pixels of the frame, angles in radians, tilts are
# the perspective row of a homography times the frame's side.
X, Y, LOG_SCALE, ANGLE, SHEAR, LOG_ASPECT, TILT_X, TILT_Y = range(8)


@dataclass(frozen=True)
class _Motion:
    """A smooth path: pose(t) = start + drift t + sway (sin(rate t + phase) - sin(phase))."""

    start: np.ndarray
    drift: np.ndarray
    sway: np.ndarray
    rate: np.ndarray
    phase: np.ndarray
    away: np.ndarray = field(default_factory=lambda: np.zeros(2))
    """Where an excursion out of the frame leads, relative to the path; zeros for none."""
    away_start: float = 0.0
    away_duration: float = 1.0
    returns: bool = True

    def pose(self, time: float) -> np.ndarray:
        """(8,) at a time in frames."""
        swing = np.sin(self.rate * time + self.phase) - np.sin(self.phase)
        pose = self.start + self.drift * time + self.sway * swing
        progress = np.clip((time - self.away_start) / self.away_duration, 0, 1)
        if not self.returns:
            progress = min(progress, 0.5)
        pose[:2] += self.away * math.sin(math.pi * progress) ** 2
        return pose


def _random_motion(
    rng: np.random.Generator, start: np.ndarray, *, speed: float, side: float, relative: float = 1.0
) -> _Motion:
    """Moves from `start` by about `speed` x `side` pixels a frame.

    `relative` scales how much it turns, grows and tilts for that speed.
    """
    direction = rng.uniform(0, 2 * np.pi)
    turning = relative * speed * rng.exponential(1.0, 8) * rng.choice([-1, 1], 8)
    drift = turning * [0, 0, 1.0, 1.8, 0.4, 0.4, 0.5, 0.5]
    drift[X] = speed * side * math.cos(direction)
    drift[Y] = speed * side * math.sin(direction)
    sway = rng.normal(0, 1.0, 8) * [side, side, 1.5, 3, 1, 1, 1, 1] * speed
    sway[LOG_SCALE:] *= relative
    return _Motion(
        start=start,
        drift=drift * rng.uniform(0, 1),
        sway=sway,
        rate=rng.uniform(0.3, 1.4, 8),
        phase=rng.uniform(0, 2 * np.pi, 8),
    )


def _homography(pose: np.ndarray, pivot_xy: tuple[float, float], side: float) -> np.ndarray:
    """(3, 3) float64: a picture's pixels, turned and scaled about its pivot, to the place."""
    cosine, sine = math.cos(pose[ANGLE]), math.sin(pose[ANGLE])
    scale = math.exp(min(max(pose[LOG_SCALE], -4.0), 4.0))
    stretch = math.exp(min(max(pose[LOG_ASPECT], -0.5), 0.5) / 2)
    shear = min(max(pose[SHEAR], -0.5), 0.5)
    # Rotation after shear after stretch: the columns are where the picture's axes go.
    a, c = scale * stretch * cosine, scale * stretch * sine
    b, d = scale / stretch * (shear * cosine - sine), scale / stretch * (shear * sine + cosine)
    tilt_x, tilt_y = (min(max(pose[axis], -0.25), 0.25) / side for axis in (TILT_X, TILT_Y))
    g, h = tilt_x * a + tilt_y * c, tilt_x * b + tilt_y * d
    pivot_x, pivot_y = pivot_xy
    matrix = np.array([
        [a, b, -a * pivot_x - b * pivot_y],
        [c, d, -c * pivot_x - d * pivot_y],
        [g, h, 1 - g * pivot_x - h * pivot_y],
    ])
    matrix[0] += pose[X] * matrix[2]
    matrix[1] += pose[Y] * matrix[2]
    return matrix


def _translation(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def _scaling(x: float, y: float) -> np.ndarray:
    return np.diag([float(x), float(y), 1.0])


@dataclass(frozen=True)
class _Wobble:
    """A displacement of where a picture is sampled: separable waves that travel slowly."""

    amplitude: np.ndarray
    """(2, 2): pixels of the frame, axis by wave."""
    frequency: np.ndarray
    """(2, 2, 2): radians per pixel of the frame; axis, wave, along x or y."""
    phase: np.ndarray
    rate: np.ndarray
    """(2, 2, 2): radians per frame."""

    def displacement(self, xs: torch.Tensor, ys: torch.Tensor, time: float, axis: int):
        """(H, W) pixels for columns `xs` and rows `ys` relative to the layer's centre."""
        total = 0
        for wave in range(2):
            frequency, phase = self.frequency[axis, wave], self.phase[axis, wave]
            shift = phase + self.rate[axis, wave] * time
            along_x = torch.sin(xs * float(frequency[0]) + float(shift[0]))
            along_y = torch.sin(ys * float(frequency[1]) + float(shift[1]))
            strength = float(self.amplitude[axis, wave])
            total = total + (strength * along_y)[:, None] * along_x[None, :]
        return total


def _random_wobble(rng: np.random.Generator, extent: float, strength: float) -> _Wobble:
    """Waves of up to `strength` x `extent` pixels, about one or two across `extent`."""
    return _Wobble(
        amplitude=rng.normal(0, 0.5, (2, 2)).clip(-1, 1) * [1.0, 0.5] * strength * extent,
        frequency=rng.uniform(2.0, 7.0, (2, 2, 2)) / extent,
        phase=rng.uniform(0, 2 * np.pi, (2, 2, 2)),
        rate=rng.normal(0, 0.6, (2, 2, 2)),
    )


# --------------------------------------------------------------------------- drawing


@dataclass(frozen=True)
class _Layer:
    """A picture on its path."""

    sprite: torch.Tensor
    """(K, 4, h, w) float32 in [0, 1], premultiplied, channels last; its border is clear."""
    motion: _Motion
    owner: int
    """Number of the object it is, UNLABELLED, or KEEP_OWNER."""
    follows_camera: bool = False
    """The pose is on the screen instead of in the world."""
    wobble: _Wobble | None = None
    frame_rate: float = 0.0
    """Sprite frames per clip frame."""
    frame_start: float = 0.0


@dataclass(frozen=True)
class _Background:
    """A picture that covers all that the camera sees, with segment numbers or without."""

    picture: torch.Tensor
    """(1, 3, h, w) float32, channels last."""
    to_world: np.ndarray
    """(3, 3): its pixels to the world, which is the first frame's pixels."""
    labels: torch.Tensor | None = None
    """(1, 1, h', w') float32 segment numbers."""
    labels_to_world: np.ndarray | None = None
    wobble: _Wobble | None = None


@dataclass(frozen=True)
class _Scene:
    background: _Background
    camera: _Motion
    layers: tuple[_Layer, ...]
    """Back to front."""
    shutter: float
    """How long the shutter is open, in frames; 0 for no motion blur."""


def _sample(
    picture: torch.Tensor,
    to_screen: np.ndarray,
    box: tuple[int, int, int, int],
    *,
    wobble: _Wobble | None = None,
    centre_xy: tuple[float, float] = (0.0, 0.0),
    time: float = 0.0,
    mode: str = "bilinear",
    padding: str = "zeros",
) -> torch.Tensor:
    """(h, w, C) of a (1, C, h', w') picture seen in the half-open x0, y0, x1, y1 box.

    `to_screen` (3, 3) takes the picture's pixels to the frame's.
    """
    x0, y0, x1, y1 = box
    height, width = picture.shape[-2:]
    # grid_sample counts from -1 to 1 across the picture's edges.
    inverse = np.linalg.inv(to_screen)
    inverse[0] = inverse[0] * (2 / width) - inverse[2]
    inverse[1] = inverse[1] * (2 / height) - inverse[2]
    inverse /= inverse[2, 2]
    xs = torch.arange(x0, x1, dtype=torch.float32, device=picture.device) + 0.5
    ys = torch.arange(y0, y1, dtype=torch.float32, device=picture.device) + 0.5
    # x + iy: one sum gives both coordinates side by side in memory, as grid_sample wants.
    on_x, on_y, offset = (complex(*inverse[:2, column]) for column in range(3))
    grid = (xs * on_x + offset)[None, :] + (ys * on_y)[:, None]
    if abs(inverse[2, :2]).max() > 1e-7:
        on_x, on_y = float(inverse[2, 0]), float(inverse[2, 1])
        depth = (xs * on_x + 1)[None, :] + (ys * on_y)[:, None]
        grid *= depth.clamp_(min=0.05).reciprocal_()
    if wobble is not None:
        local_xs, local_ys = xs - centre_xy[0], ys - centre_xy[1]
        # How far one pixel of the frame is across the picture, from -1 to 1.
        steps = 2 / np.array([width, height]) / math.sqrt(abs(np.linalg.det(to_screen[:2, :2])))
        shifts = [
            wobble.displacement(local_xs, local_ys, time, axis).mul_(float(steps[axis]))
            for axis in range(2)
        ]
        grid += torch.complex(*shifts)
    grid = torch.view_as_real(grid)[None]
    sampled = F.grid_sample(picture, grid, mode=mode, padding_mode=padding, align_corners=False)
    return sampled[0].permute(1, 2, 0)


def _project(matrix: np.ndarray, points_xy: np.ndarray) -> np.ndarray:
    """(N, 2) points through a homography; those behind the viewer end up far away."""
    projected = points_xy @ matrix[:, :2].T + matrix[:, 2]
    return projected[:, :2] / np.maximum(projected[:, 2:], 0.05)


def _corners(width: float, height: float) -> np.ndarray:
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)


def _camera_matrix(camera: _Motion, time: float, size_hw: tuple[int, int]) -> np.ndarray:
    """(3, 3): the world to the frame; the identity at time 0."""
    height, width = size_hw
    pose = camera.pose(time)
    pose[:2] += (width / 2, height / 2)
    return _homography(pose, (width / 2, height / 2), max(size_hw))


def _visible_box(
    layer: _Layer, matrices: list[np.ndarray], size_hw: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Half-open x0, y0, x1, y1 of the frame that the layer can cover; None if nothing."""
    height, width = layer.sprite.shape[-2:]
    points = np.concatenate([_project(matrix, _corners(width, height)) for matrix in matrices])
    margin = 1.0 if layer.wobble is None else 1 + abs(layer.wobble.amplitude).sum(1).max()
    low, high = points.min(0) - margin, points.max(0) + margin
    x0, y0 = (int(max(value, 0)) for value in np.floor(low))
    x1, y1 = (
        int(min(value, side)) for value, side in zip(np.ceil(high), (size_hw[1], size_hw[0]))
    )
    return (x0, y0, x1, y1) if x1 - x0 > 0 and y1 - y0 > 0 else None


def _moments(
    matrix_at: Callable[[float], np.ndarray],
    *,
    time: float,
    shutter: float,
    corners: np.ndarray,
    max_count: int,
) -> list[tuple[float, np.ndarray]]:
    """(time, matrix) while the shutter is open: as many as the movement needs to look smooth."""
    if shutter == 0:
        return [(time, matrix_at(time))]
    first, last = matrix_at(time - shutter / 2), matrix_at(time + shutter / 2)
    travel = np.abs(_project(first, corners) - _project(last, corners)).max()
    count = int(min(max(math.ceil(travel / PIXELS_PER_MOMENT), 1), max_count))
    times = time + shutter * ((np.arange(count) + 0.5) / count - 0.5)
    return [(float(moment), matrix_at(moment)) for moment in times]


def _draw_layer(
    canvas: torch.Tensor,
    owners: torch.Tensor,
    layer: _Layer,
    camera_at: Callable[[float], np.ndarray],
    *,
    time: float,
    shutter: float,
) -> None:
    """Blend a layer, averaged while the shutter is open, into the (3, H, W) canvas."""
    size_hw = (canvas.shape[1], canvas.shape[2])
    height, width = layer.sprite.shape[-2:]

    def matrix_at(moment: float) -> np.ndarray:
        matrix = _homography(layer.motion.pose(moment), (width / 2, height / 2), max(size_hw))
        return matrix if layer.follows_camera else camera_at(moment) @ matrix

    corners = _corners(width, height)
    moments = _moments(matrix_at, time=time, shutter=shutter, corners=corners, max_count=12)
    box = _visible_box(layer, [matrix for _, matrix in moments], size_hw)
    if box is None:
        return
    # Animations step between frames, not while the shutter is open.
    index = int(layer.frame_start + layer.frame_rate * time) % len(layer.sprite)
    drawn = 0
    for moment, matrix in moments:
        centre = _project(matrix, corners.mean(0, keepdims=True))[0]
        drawn = drawn + _sample(
            layer.sprite[index : index + 1],
            matrix,
            box,
            wobble=layer.wobble,
            centre_xy=(float(centre[0]), float(centre[1])),
            time=moment,
        )
    if len(moments) > 1:
        drawn = drawn / len(moments)
    rows, columns = slice(box[1], box[3]), slice(box[0], box[2])
    alpha = drawn[..., 3].contiguous()
    canvas[:, rows, columns].mul_(1 - alpha).add_(drawn[..., :3].permute(2, 0, 1))
    if layer.owner != KEEP_OWNER:
        owners[rows, columns].masked_fill_(alpha > 0.5, layer.owner)


def _draw_frame(
    scene: _Scene, time: float, size_hw: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """((3, H, W) float32 colours, (H, W) int16 owners) of a scene at a time."""
    background = scene.background
    box = (0, 0, size_hw[1], size_hw[0])
    # All layers look through the camera at much the same moments.
    camera_at = functools.cache(lambda moment: _camera_matrix(scene.camera, moment, size_hw))
    moments = _moments(
        camera_at,
        time=time,
        shutter=scene.shutter,
        corners=_corners(size_hw[1], size_hw[0]),
        max_count=6,
    )
    sampled = 0
    for moment, camera in moments:
        sampled = sampled + _sample(
            background.picture,
            camera @ background.to_world,
            box,
            wobble=background.wobble,
            time=moment,
            padding="reflection",
        )
    canvas = (sampled / len(moments)).permute(2, 0, 1).contiguous()
    owners = torch.zeros(size_hw, dtype=torch.int16, device=canvas.device)
    if background.labels is not None:
        labels = _sample(
            background.labels,
            camera_at(time) @ background.labels_to_world,
            box,
            wobble=background.wobble,
            time=time,
            mode="nearest",
            padding="reflection",
        )
        owners = labels[..., 0].to(torch.int16)
    for layer in scene.layers:
        _draw_layer(canvas, owners, layer, camera_at, time=time, shutter=scene.shutter)
    return canvas, owners


# --------------------------------------------------------------------------- camera finish


@dataclass(frozen=True)
class _Finish:
    """What the camera does to a drawn frame."""

    exposure: np.ndarray
    """(T, 3) factors."""
    gamma: np.ndarray
    """(T,)"""
    blur_radius: float
    noise: np.ndarray | None
    """(H', W', 3) int16 to take windows of, larger than the frame by NOISE_MARGIN."""
    noise_offsets: np.ndarray
    """(T, 2) where a frame's window starts, x and y."""
    jpeg_quality: int
    """0 for no compression."""

    def apply(self, canvas: torch.Tensor, frame_index: int) -> np.ndarray:
        """(3, H, W) float32 colours -> (H, W, 3) uint8 as recorded."""
        levels = canvas.clamp(0, 1).mul_(255).add_(0.5).to(torch.uint8)
        picture = Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())
        exposure, gamma = self.exposure[frame_index], self.gamma[frame_index]
        if gamma != 1 or (exposure != 1).any():
            curve = np.linspace(0, 1, 256) ** gamma
            picture = picture.point(to_uint8(exposure[:, None] * curve).ravel().tolist())
        if self.blur_radius > 0:
            picture = picture.filter(ImageFilter.BoxBlur(self.blur_radius))
        if self.noise is not None:
            x, y = self.noise_offsets[frame_index]
            window = self.noise[y : y + picture.height, x : x + picture.width]
            picture = Image.fromarray(np.clip(np.asarray(picture) + window, 0, 255).astype("u1"))
        if self.jpeg_quality:
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=self.jpeg_quality)
            picture = Image.open(stream, formats=("JPEG",)).convert("RGB")
        return np.asarray(picture)


NOISE_MARGIN = 48


def _random_finish(rng: np.random.Generator, settings: ClipSettings) -> _Finish:
    height, width = settings.image_size_hw
    times = np.arange(settings.frame_count)[:, None]
    exposure, gamma = np.ones((settings.frame_count, 3)), np.ones(settings.frame_count)
    if rng.random() < settings.lighting:
        waves = np.sin(times * rng.uniform(0.2, 1.2, 5) + rng.uniform(0, 6.3, 5))
        cast = 0.05 * waves[:, :3] * rng.uniform(0, 2)
        exposure = np.exp(cast + 0.3 * rng.uniform(0, 1) * waves[:, 3:4])
        gamma = np.exp(0.35 * rng.uniform(0, 1) * waves[:, 4])
    noise = None
    if rng.random() < settings.noise:
        shape = (height + NOISE_MARGIN, width + NOISE_MARGIN, 3)
        strength = rng.uniform(1, 12)
        noise = (strength * rng.standard_normal(shape, dtype=np.float32)).astype(np.int16)
    return _Finish(
        exposure=exposure,
        gamma=gamma,
        blur_radius=rng.uniform(0.4, 1.5) if rng.random() < settings.frame_blur else 0.0,
        noise=noise,
        noise_offsets=rng.integers(0, NOISE_MARGIN, (settings.frame_count, 2)),
        jpeg_quality=int(rng.integers(25, 90)) if rng.random() < settings.jpeg else 0,
    )


# --------------------------------------------------------------------------- backgrounds


def _random_camera(
    rng: np.random.Generator, settings: ClipSettings, *, relative: float = 0.5
) -> _Motion:
    if rng.random() >= settings.camera_motion:
        return _random_motion(rng, np.zeros(8), speed=0.0, side=1.0)
    speed = min(rng.exponential(0.018), 0.09)
    side = max(settings.image_size_hw)
    return _random_motion(rng, np.zeros(8), speed=speed, side=side, relative=relative)


def _seen_box(camera: _Motion, settings: ClipSettings) -> np.ndarray:
    """(4,) x0, y0, x1, y1 of the world that the camera sees at some time."""
    height, width = settings.image_size_hw
    points = [
        _project(
            np.linalg.inv(_camera_matrix(camera, time, settings.image_size_hw)),
            _corners(width, height),
        )
        for time in np.linspace(-0.35, settings.frame_count - 0.65, settings.frame_count + 1)
    ]
    points = np.concatenate(points)
    margin = 0.02 * max(height, width)
    return np.concatenate([points.min(0) - margin, points.max(0) + margin])


def _jitter_colours(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Random contrast, brightness, white balance and gamma; now and then grey."""
    if rng.random() < 0.04:
        picture = picture.convert("L").convert("RGB")
    contrast = rng.uniform(0.65, 1.3)
    brightness = rng.normal(0, 0.06)
    balance = rng.normal(1, 0.06, (3, 1))
    curve = np.linspace(0, 1, 256) ** math.exp(rng.normal(0, 0.2))
    table = to_uint8(((curve - 0.5) * contrast + 0.5 + brightness) * balance)
    return picture.point(table.ravel().tolist())


def _to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """(h, w, C) uint8 -> (1, C, h, w) float32 in [0, 1], channels last."""
    values = torch.from_numpy(pixels).to(torch.float32).mul_(1 / 255)
    return values.permute(2, 0, 1)[None]


def _place_background(
    rng: np.random.Generator,
    picture: np.ndarray,
    camera: _Motion,
    settings: ClipSettings,
    *,
    labelled: bool = False,
    zoom_range: tuple[float, float] = (0.45, 1.0),
) -> _Background:
    """A random part of a picture, stretched over all that the camera will see.

    `picture` is (H, W, 3), or (H, W, 4) with segment numbers if `labelled`. `zoom_range`
    is how much of the largest possible part is taken.
    """
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    seen = _seen_box(camera, settings)
    seen_size = seen[2:] - seen[:2]
    aspect = seen_size[0] / seen_size[1] * math.exp(rng.uniform(-0.2, 0.2))
    height, width = picture.shape[:2]
    part_width = min(width, height * aspect) * rng.uniform(*zoom_range)
    part_width, part_height = max(int(part_width), 8), max(int(part_width / aspect), 8)
    x = int(rng.integers(0, width - part_width + 1))
    y = int(rng.integers(0, max(height - part_height, 0) + 1))
    part = np.ascontiguousarray(picture[y : y + part_height, x : x + part_width])
    # No finer than the frame needs, so that sampling does not alias; no finer than it is.
    scale = min(1.0, 640 / seen_size.max(), part.shape[1] / seen_size[0])
    raster_size = tuple(max(int(value), 8) for value in seen_size * scale)
    colours = Image.fromarray(part[..., :3]).resize(raster_size, Image.Resampling.BILINEAR)
    colours = _jitter_colours(rng, colours)
    origin = _translation(seen[0], seen[1])
    labels = None
    if labelled:
        labels = torch.from_numpy(part[..., 3].copy()).to(torch.float32)[None, None]
    return _Background(
        picture=_to_tensor(np.array(colours)),
        to_world=origin @ _scaling(*(seen_size / raster_size)),
        labels=labels,
        labels_to_world=origin @ _scaling(*(seen_size / (part.shape[1], part.shape[0]))),
    )


# --------------------------------------------------------------------------- objects


def _resized(frames: np.ndarray, max_side: float) -> np.ndarray:
    """(K, h, w, 4) frames made smaller, weighting colours by alpha; never larger."""
    height, width = frames.shape[1:3]
    scale = max_side / max(height, width)
    if scale >= 1:
        return frames
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    return np.stack([
        np.asarray(
            Image.fromarray(np.ascontiguousarray(frame))
            .resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        )
        for frame in frames
    ])


def _cropped(frames: np.ndarray) -> np.ndarray:
    """(K, h, w, 4) frames cropped to what is opaque in any."""
    opaque = frames[..., 3].max(0) > 8
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    if len(rows) == 0:
        return frames
    return frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _photo_texture(rng: np.random.Generator, photo: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) float32: a random part of a photograph."""
    height, width = photo.shape[:2]
    part = int(min(height, width) * rng.uniform(0.2, 0.8))
    x, y = int(rng.integers(0, width - part + 1)), int(rng.integers(0, height - part + 1))
    crop = Image.fromarray(np.ascontiguousarray(photo[y : y + part, x : x + part, :3]))
    return np.asarray(crop.resize((side, side), Image.Resampling.BILINEAR), np.float32) / 255


@dataclass(frozen=True)
class _Maker:
    """Makes objects' pictures for one clip."""

    materials: Materials
    settings: ClipSettings
    photo: np.ndarray
    """(H, W, 3 or 4) uint8: the clip's background picture, for camouflage."""

    def frames(self, rng: np.random.Generator, side: float) -> np.ndarray:
        """(K, h, w, 4) uint8: any object, at most `side` pixels."""
        kinds = ("cutout", "photo_cutout", "animation", "drawn", "refilled")
        weights = np.array([0.24, 0.24, 0.14, 0.3, 0.08])
        present = [kind in ("drawn",) or self._count(kind) > 0 for kind in kinds]
        kind = rng.choice(kinds, p=weights * present / (weights * present).sum())
        if kind == "drawn":
            return _cropped(self._drawn(rng, side))
        if kind == "refilled":
            return self._refilled(rng, side)
        frames = self.materials.pick(str(kind), rng)
        frames = frames if frames.ndim == 4 else frames[None]
        return self._recoloured(rng, _resized(frames, side))

    def _count(self, kind: str) -> int:
        return self.materials.count("cutout" if kind == "refilled" else kind)

    def texture(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """(side, side, 3) float32: photograph, camouflage, pattern or one colour."""
        choice = rng.random()
        if choice < 0.2:
            texture = _photo_texture(rng, self.photo, side)
            return texture * rng.uniform(0.8, 1.25)
        if choice < 0.55:
            return _photo_texture(rng, self.materials.pick("background", rng), side)
        if choice < 0.75:
            return draw_texture(rng, (side, side))
        return np.broadcast_to(random_colour(rng), (side, side, 3))

    def _drawn(self, rng: np.random.Generator, side: float) -> np.ndarray:
        """A drawn shape; most of those that can move do."""
        side = int(min(max(side, 12), 256))
        moves = self.settings.frame_count > 1 and rng.random() < 0.6
        frame_count = int(rng.integers(3, 9)) if moves else 1
        texture = self.texture(rng, side)
        return draw_object(rng, (side, side), frame_count=frame_count, texture=texture)

    def _refilled(self, rng: np.random.Generator, side: float) -> np.ndarray:
        """A cut-out's outline, filled with another texture."""
        frames = _resized(self.materials.pick("cutout", rng)[None], side)
        height, width = frames.shape[1:3]
        texture = self.texture(rng, max(height, width))[:height, :width]
        alpha = np.ascontiguousarray(frames[0, ..., 3])
        colours = to_uint8(texture * shade(rng, alpha)[..., None])
        return np.concatenate([colours, alpha[..., None]], axis=-1)[None]

    def _recoloured(self, rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
        """Some cut-outs get other hues, less colour, or flat, cartoon-like tones."""
        if rng.random() < 0.45:
            return frames
        colours = frames[..., :3].astype(np.float32) / 255
        if rng.random() < 0.35:
            colours = colours[..., rng.permutation(3)]
        grey = colours.mean(-1, keepdims=True)
        colours = grey + rng.uniform(0, 1.1) * (colours - grey)
        if rng.random() < 0.2:
            colours = np.round(colours * 4) / 4
        colours = colours * rng.uniform(0.55, 1.15) + rng.normal(0, 0.05, 3)
        return np.concatenate([to_uint8(colours), frames[..., 3:]], axis=-1)


def _pulled_towards(frames: np.ndarray, target: np.ndarray, strength: float) -> np.ndarray:
    """Move the frames' mean colour towards `target` ((3,) in [0, 1]) and flatten contrast."""
    colours = frames[..., :3].astype(np.float32) / 255
    weight = frames[..., 3:].astype(np.float32)
    mean = (colours * weight).sum((0, 1, 2)) / max(float(weight.sum()), 1.0)
    colours = mean + (1 - 0.4 * strength) * (colours - mean) + strength * (target - mean)
    return np.concatenate([to_uint8(colours), frames[..., 3:]], axis=-1)


def _sprite(frames: np.ndarray, *, padding: int = 1) -> torch.Tensor:
    """(K, h, w, 4) straight uint8 -> (K, 4, h + 2p, w + 2p) premultiplied float32."""
    count, height, width, _ = frames.shape
    padded = torch.zeros(count, height + 2 * padding, width + 2 * padding, 4)
    inner = padded[:, padding : padding + height, padding : padding + width]
    inner.copy_(torch.from_numpy(np.array(frames))).mul_(1 / 255)
    inner[..., :3].mul_(inner[..., 3:])
    return padded.permute(0, 3, 1, 2)


def _local_colour(background: _Background, x: float, y: float, extent: float) -> np.ndarray:
    """(3,) mean colour of the background round a point of the world."""
    matrix = np.linalg.inv(background.to_world)
    corners = np.array([[x - extent / 2, y - extent / 2], [x + extent / 2, y + extent / 2]])
    (x0, y0), (x1, y1) = _project(matrix, corners)
    height, width = background.picture.shape[-2:]
    x0, y0 = int(np.clip(x0, 0, width - 2)), int(np.clip(y0, 0, height - 2))
    x1, y1 = int(np.clip(x1, x0 + 1, width)), int(np.clip(y1, y0 + 1, height))
    return background.picture[0, :, y0:y1, x0:x1].mean((1, 2)).numpy()


def _object_side(rng: np.random.Generator, settings: ClipSettings) -> float:
    """The longer side in pixels of an object's picture."""
    low, high = settings.object_side_range
    fraction = settings.typical_object_side * math.exp(rng.normal(0, 0.6))
    return min(max(fraction, low), high) * min(settings.image_size_hw)


def _object_motion(
    rng: np.random.Generator, settings: ClipSettings, *, side: float, log_scale: float
) -> _Motion:
    """A path that starts in the frame, with the object's picture scaled by `log_scale`."""
    height, width = settings.image_size_hw
    place = rng.uniform(0.14, 0.86, 2)
    if rng.random() < settings.partly_outside:
        place[int(rng.integers(2))] = rng.choice([rng.uniform(0, 0.08), rng.uniform(0.92, 1)])
    start = rng.normal(0, 1, 8) * [0, 0, 0, 0.35, 0.1, 0.12, 0.08, 0.08]
    if rng.random() < 0.15:
        start[ANGLE] = rng.uniform(0, 2 * np.pi)
    start[X], start[Y], start[LOG_SCALE] = place[0] * width, place[1] * height, log_scale
    speed = min(rng.exponential(0.022), 0.08)
    if rng.random() < settings.fast_motion:
        speed = rng.uniform(0.05, 0.18)
    # Small things are mostly far away, and far away things move little across the frame.
    speed *= min(0.4 + 1.2 * side / min(height, width), 1.2)
    motion = _random_motion(
        rng, start, speed=speed, side=max(height, width), relative=rng.uniform(0.3, 1.5)
    )
    if rng.random() >= settings.leave or settings.frame_count < 2:
        return motion
    direction = (place - 0.5) + rng.normal(0, 0.15, 2)
    direction /= max(float(np.linalg.norm(direction)), 1e-3)
    last = settings.frame_count - 1
    return replace(
        motion,
        away=direction * (0.65 * max(height, width) + side),
        away_start=rng.uniform(0, 0.4 * last),
        away_duration=rng.uniform(0.6, 1.3) * last + 1.0,
        returns=bool(rng.random() < 0.6),
    )


def _make_object(
    rng: np.random.Generator,
    maker: _Maker,
    background: _Background,
    owner: int,
) -> tuple[_Layer, float]:
    """(layer, longer side in pixels) of a new object."""
    settings = maker.settings
    side = _object_side(rng, settings)
    frames = maker.frames(rng, 1.1 * side)
    if rng.random() < 0.5:
        frames = frames[:, :, ::-1]
    native_side = max(frames.shape[1:3])
    # A tiny cut-out blown up would be a blur.
    side = min(side, 2.2 * native_side)
    motion = _object_motion(rng, settings, side=side, log_scale=math.log(side / native_side))
    if rng.random() < settings.low_contrast:
        colour = _local_colour(background, motion.start[X], motion.start[Y], side)
        frames = _pulled_towards(frames, colour, rng.uniform(0.55, 0.97))
    if rng.random() < settings.object_blur:
        frames = np.stack([
            np.asarray(Image.fromarray(np.ascontiguousarray(frame)).filter(ImageFilter.BoxBlur(1)))
            for frame in frames
        ])
    wobbles = rng.random() < settings.deform
    return (
        _Layer(
            sprite=_sprite(frames),
            motion=motion,
            owner=owner,
            follows_camera=bool(rng.random() < settings.screen_locked),
            wobble=_random_wobble(rng, side, rng.uniform(0.03, 0.14)) if wobbles else None,
            frame_rate=rng.uniform(0.4, 1.6) * rng.choice([-1, 1]) if len(frames) > 1 else 0.0,
            frame_start=rng.uniform(0, len(frames)),
        ),
        side,
    )


def _look_alike(
    rng: np.random.Generator, layer: _Layer, settings: ClipSettings, *, side: float, owner: int
) -> _Layer:
    """The same picture in another place and pose."""
    sprite = layer.sprite
    if rng.random() < 0.5:
        sprite = sprite.flip(-1)
    if rng.random() < 0.5:
        tint = torch.tensor([*rng.uniform(0.75, 1.0, 3), 1.0], dtype=torch.float32)
        sprite = sprite * tint[:, None, None]
    log_scale = layer.motion.start[LOG_SCALE] + rng.normal(0, 0.15)
    motion = _object_motion(rng, settings, side=side, log_scale=log_scale)
    return replace(
        layer,
        sprite=sprite.contiguous(memory_format=torch.channels_last),
        motion=motion,
        owner=owner,
        frame_start=rng.uniform(0, len(sprite)),
    )


def _occluder(
    rng: np.random.Generator, maker: _Maker, target: _Layer, target_side: float
) -> _Layer:
    """Something, often a bar like a pole or a branch, that crosses `target` at some time."""
    settings = maker.settings
    height, width = settings.image_size_hw
    if rng.random() < 0.5:
        shape = (int(rng.uniform(0.7, 1.6) * max(height, width)), int(rng.uniform(5, 40)))
        texture = maker.texture(rng, 64)
        colours = Image.fromarray(to_uint8(texture)).resize(shape[::-1])
        frames = np.dstack([np.asarray(colours), np.full(shape, 255, np.uint8)])[None]
        log_scale, angle = 0.0, rng.normal(0, 0.4) + rng.choice([0, np.pi / 2])
    else:
        side = min(target_side * rng.uniform(0.4, 1.3), 0.6 * min(height, width))
        frames = maker.frames(rng, side)[:1]
        log_scale, angle = math.log(side / max(frames.shape[1:3])), rng.normal(0, 0.4)
    start = np.zeros(8)
    start[LOG_SCALE], start[ANGLE] = log_scale, angle
    speed = rng.uniform(0.01, 0.15)
    motion = _random_motion(rng, start, speed=speed, side=max(height, width), relative=0.2)
    meeting = rng.uniform(0.5, max(settings.frame_count - 1, 0.6))
    start[:2] = target.motion.pose(meeting)[:2] - motion.pose(meeting)[:2]
    start[:2] += rng.normal(0, 0.15, 2) * target_side
    return _Layer(
        sprite=_sprite(frames),
        motion=motion,
        owner=UNLABELLED,
        follows_camera=target.follows_camera,
    )


def _shadow(rng: np.random.Generator, layer: _Layer, *, side: float) -> _Layer:
    """A soft dark copy of a layer's alpha, moved aside and often flattened to the ground."""
    alpha = layer.sprite[:1, 3:4]
    reduction = max(1, int(max(alpha.shape[-2:]) / 48))
    small = F.avg_pool2d(F.pad(alpha, [2 * reduction] * 4), reduction)
    kernel = 3 if max(small.shape[-2:]) < 24 else 5
    soft = F.avg_pool2d(small, kernel, stride=1, padding=kernel // 2)
    sprite = torch.zeros(1, 4, *soft.shape[-2:]).contiguous(memory_format=torch.channels_last)
    sprite[:, 3:] = soft * rng.uniform(0.2, 0.6)
    offset = rng.normal(0, 0.1, 2) * side
    start = layer.motion.start.copy()
    start[LOG_SCALE] += math.log(reduction)
    if rng.random() < 0.6:
        start[LOG_ASPECT] = 0.5
        offset[1] = 0.35 * side
        start[SHEAR] += rng.normal(0, 0.3)
    start[:2] += offset
    return replace(
        layer,
        sprite=sprite,
        motion=replace(layer.motion, start=start),
        owner=KEEP_OWNER,
        frame_rate=0.0,
        frame_start=0.0,
    )


def _make_layers(
    rng: np.random.Generator, maker: _Maker, background: _Background, *, object_count: int,
    first_owner: int,
) -> list[_Layer]:
    """Objects numbered from `first_owner`, with their company, back to front."""
    settings = maker.settings
    owners = range(first_owner, first_owner + object_count)
    made = [_make_object(rng, maker, background, owner) for owner in owners]
    if rng.random() < settings.distractor:
        chosen = int(rng.integers(object_count))
        original, side = made[chosen]
        for index in range(int(rng.integers(1, 4))):
            # The last object may become a twin; the other copies are nobody's object.
            becomes_object = index == 0 and chosen != object_count - 1 and rng.random() < 0.5
            owner = made[-1][0].owner if becomes_object else UNLABELLED
            copy = _look_alike(rng, original, settings, side=side, owner=owner)
            if becomes_object:
                made[-1] = (copy, side)
            else:
                made.append((copy, side))
    # Small things mostly in front: a large one would hide them for good.
    order = sorted(range(len(made)), key=lambda index: -made[index][1] * rng.uniform(0.3, 1))
    layers = []
    for index in order:
        layer, side = made[index]
        if rng.random() < settings.shadow:
            layers.append(_shadow(rng, layer, side=side))
        layers.append(layer)
    if rng.random() < settings.occluder:
        for _ in range(int(rng.integers(1, 3))):
            target, side = made[int(rng.integers(object_count))]
            layers.append(_occluder(rng, maker, target, side))
    return layers


# --------------------------------------------------------------------------- clips


def _shutter(rng: np.random.Generator, settings: ClipSettings) -> float:
    blurred = settings.frame_count > 1 and rng.random() < settings.motion_blur
    return rng.uniform(0.2, 0.7) if blurred else 0.0


def _on_device(scene: _Scene, device: str) -> _Scene:
    """The scene with its pictures there: what is random was drawn before, on the CPU."""
    if device == "cpu":
        return scene
    background = scene.background
    labels = None if background.labels is None else background.labels.to(device)
    return replace(
        scene,
        background=replace(background, picture=background.picture.to(device), labels=labels),
        layers=tuple(replace(layer, sprite=layer.sprite.to(device)) for layer in scene.layers),
    )


def _render(
    scene: _Scene, finish: _Finish, settings: ClipSettings
) -> tuple[np.ndarray, np.ndarray]:
    """((T, H, W, 3) uint8 frames, (T, H, W) int16 owners)."""
    scene = _on_device(scene, settings.device)
    frames, owners = [], []
    for frame_index in range(settings.frame_count):
        canvas, owner = _draw_frame(scene, float(frame_index), settings.image_size_hw)
        frames.append(finish.apply(canvas, frame_index))
        owners.append(owner.cpu().numpy())
    return np.stack(frames), np.stack(owners)


def _clip_of(
    frames: np.ndarray, owners: np.ndarray, min_fractions: Mapping[int, float]
) -> Clip | None:
    """A clip of the owners that fill their fraction of frame 0; None if there is none."""
    areas = np.bincount(owners[0].ravel())
    area = owners[0].size
    listed = [
        owner
        for owner, fraction in min_fractions.items()
        if owner < len(areas) and areas[owner] > fraction * area
    ]
    if not listed:
        return None
    return Clip(frames=frames, masks=np.stack([owners == owner for owner in listed], axis=1))


def _first_usable(
    attempt: Callable[[np.random.Generator], Clip | None], *, seed: int, kind: int
) -> Clip:
    """The first clip with an object in it, of a fixed sequence of attempts for the seed."""
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    for number in range(MAX_ATTEMPTS):
        clip = attempt(np.random.default_rng([seed, kind, number]))
        if clip is not None:
            return clip
    raise RuntimeError(
        f"seed {seed} gave no visible object in {MAX_ATTEMPTS} attempts; "
        "lower min_area_fraction or min_segment_fraction"
    )


def make_clip(materials: Materials, settings: ClipSettings, seed: int) -> Clip:
    """A clip of 1 to `max_objects` objects that move over a moving background.

    The same materials, settings and seed give the same bytes. Raises ValueError for a
    negative seed.
    """

    def attempt(rng: np.random.Generator) -> Clip | None:
        camera = _random_camera(rng, settings)
        photo = materials.pick("background", rng)
        background = _place_background(rng, photo, camera, settings)
        maker = _Maker(materials, settings, photo)
        object_count = int(rng.integers(1, settings.max_objects + 1))
        layers = _make_layers(
            rng, maker, background, object_count=object_count, first_owner=1
        )
        scene = _Scene(background, camera, tuple(layers), _shutter(rng, settings))
        frames, owners = _render(scene, _random_finish(rng, settings), settings)
        wanted = dict.fromkeys(range(1, object_count + 1), settings.min_area_fraction)
        return _clip_of(frames, owners, wanted)

    return _first_usable(attempt, seed=seed, kind=0)


def _segment_fractions(background: _Background, settings: ClipSettings) -> dict[int, float]:
    numbers = torch.unique(background.labels).to(torch.int64).tolist()
    return {number: settings.min_segment_fraction for number in numbers if number > 0}


def make_image_sample(materials: Materials, settings: ClipSettings, seed: int) -> Clip:
    """One frame (T = 1): a random crop of a labelled image, its segments as masks.

    Segments (things and stuff) that fill more than `min_segment_fraction` of the crop are
    listed. Raises ValueError for a negative seed.
    """
    settings = replace(settings, frame_count=1, camera_motion=0.0)

    def attempt(rng: np.random.Generator) -> Clip | None:
        camera = _random_camera(rng, settings)
        image = materials.pick("labelled_image", rng)
        background = _place_background(
            rng, image, camera, settings, labelled=True, zoom_range=(0.35, 1.0)
        )
        scene = _Scene(background, camera, (), 0.0)
        frames, owners = _render(scene, _random_finish(rng, settings), settings)
        return _clip_of(frames, owners, _segment_fractions(background, settings))

    return _first_usable(attempt, seed=seed, kind=1)


def make_warped_clip(materials: Materials, settings: ClipSettings, seed: int) -> Clip:
    """A labelled image as a clip: a moving camera, smooth deformation, real segments.

    In some, composed objects move over it; they follow the segments in `masks`. Raises
    ValueError for a negative seed.
    """

    def attempt(rng: np.random.Generator) -> Clip | None:
        camera = _random_camera(rng, replace(settings, camera_motion=1.0), relative=1.2)
        image = materials.pick("labelled_image", rng)
        background = _place_background(
            rng, image, camera, settings, labelled=True, zoom_range=(0.5, 1.0)
        )
        if rng.random() < 0.8:
            side = max(settings.image_size_hw)
            wobble = _random_wobble(rng, side * rng.uniform(0.4, 1), rng.uniform(0.01, 0.05))
            background = replace(background, wobble=wobble)
        fractions = _segment_fractions(background, settings)
        first_owner = max(fractions, default=0) + 1
        layers: list[_Layer] = []
        if rng.random() < settings.overlays:
            object_count = int(rng.integers(1, min(settings.max_objects, 2) + 1))
            maker = _Maker(materials, settings, image)
            layers = _make_layers(
                rng, maker, background, object_count=object_count, first_owner=first_owner
            )
            owners = range(first_owner, first_owner + object_count)
            fractions |= dict.fromkeys(owners, settings.min_area_fraction)
        scene = _Scene(background, camera, tuple(layers), _shutter(rng, settings))
        frames, owners = _render(scene, _random_finish(rng, settings), settings)
        return _clip_of(frames, owners, fractions)

    return _first_usable(attempt, seed=seed, kind=2)


MAKERS: dict[str, Callable[[Materials, ClipSettings, int], Clip]] = {
    "clip": make_clip,
    "image": make_image_sample,
    "warped": make_warped_clip,
}
DEFAULT_MIX = {"clip": 0.7, "warped": 0.3}


class ClipStream(Iterator[Clip]):
    """Endless clips, one for each seed from `start_seed` in steps of `seed_step`.

    Which kind a seed gives depends on the seed alone, so `n` workers with start seeds
    s, s + 1, ... s + n - 1 and a step of n make the clips of one stream between them.
    Can be pickled at any point, and goes on from there.
    """

    def __init__(
        self,
        materials: Materials,
        settings: ClipSettings,
        *,
        start_seed: int,
        mix: Mapping[str, float] = DEFAULT_MIX,
        seed_step: int = 1,
    ) -> None:
        unknown = set(mix) - set(MAKERS)
        if unknown or not sum(mix.values()) > 0 or min(mix.values()) < 0:
            raise ValueError(
                f"mix must give weights, at least one positive, to some of {sorted(MAKERS)}, "
                f"got {dict(mix)}"
            )
        self.materials = materials
        self.settings = settings
        self.next_seed = start_seed
        self.seed_step = seed_step
        self.mix = dict(sorted(mix.items()))

    def make(self, seed: int) -> Clip:
        """The clip of one seed, wherever the stream is."""
        weights = np.array(list(self.mix.values()))
        choice = np.random.default_rng([seed, 99]).choice(len(weights), p=weights / weights.sum())
        return MAKERS[list(self.mix)[choice]](self.materials, self.settings, seed)

    def __next__(self) -> Clip:
        clip = self.make(self.next_seed)
        self.next_seed += self.seed_step
        return clip


def clip_stream(
    materials: Materials,
    settings: ClipSettings,
    *,
    start_seed: int,
    mix: Mapping[str, float] = DEFAULT_MIX,
    seed_step: int = 1,
) -> Iterator[Clip]:
    """Endless clips of the kinds in `mix` ("clip", "warped", "image") by weight.

    An image sample has one frame, the others `settings.frame_count`. Raises ValueError for
    an unknown kind or weights that cannot be.
    """
    return ClipStream(materials, settings, start_seed=start_seed, mix=mix, seed_step=seed_step)
