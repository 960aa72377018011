"""The image predictor as its callers see it, on a network of toy size."""

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_model.image_predictor import SAM2ImagePredictor
from sam2_model.network import SAM2Network
from tests.sam2_model.small_model import SMALL, moving_square, small_network, small_state_dict

HEIGHT, WIDTH = 64, 96
LOW = SMALL.low_res_mask_size
CLICK = {"point_coords": np.array([[40, 30]]), "point_labels": np.array([1])}
BOX = np.array([10, 10, 50, 50])


@pytest.fixture
def image():
    return moving_square(1, WIDTH, HEIGHT)[0]


@pytest.fixture
def predictor(image):
    predictor = SAM2ImagePredictor(small_network())
    predictor.set_image(image)
    return predictor


@pytest.mark.parametrize(
    "prompt, leading, count",
    [
        (CLICK, (), 3),
        ({**CLICK, "multimask_output": False}, (), 1),
        ({"box": BOX}, (), 3),
        ({"box": BOX[None], "multimask_output": False}, (), 1),  # a batch of one
        ({"box": np.stack([BOX, BOX + 5, BOX - 5])}, (3,), 3),  # three objects
        ({"box": np.stack([BOX, BOX + 5]), "multimask_output": False}, (2,), 1),
        ({"point_coords": np.full((2, 3, 2), 20.0), "point_labels": np.ones((2, 3))}, (2,), 3),
        ({**CLICK, "box": BOX}, (), 3),
        ({}, (), 3),  # no prompt at all: what the image suggests
        ({"mask_input": np.zeros((1, LOW, LOW)), "multimask_output": False}, (), 1),
        ({"mask_input": np.zeros((2, 1, LOW, LOW))}, (2,), 3),
        ({**CLICK, "mask_input": np.zeros((1, LOW, LOW))}, (), 3),
        ({"box": np.stack([BOX, BOX + 5]), "mask_input": np.zeros((2, 1, LOW, LOW))}, (2,), 3),
    ],
)
def test_shapes_are_metas(predictor, prompt, leading, count):
    masks, ious, low_res = predictor.predict(**prompt)
    assert masks.shape == (*leading, count, HEIGHT, WIDTH)
    assert ious.shape == (*leading, count) and ious.dtype == np.float32
    assert low_res.shape == (*leading, count, LOW, LOW) and low_res.dtype == np.float32
    assert set(np.unique(masks)) <= {0, 1}


def test_logits_are_the_masks_before_the_threshold(predictor):
    masks, ious, low_res = predictor.predict(**CLICK)
    logits, same_ious, same_low_res = predictor.predict(**CLICK, return_logits=True)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits > 0, masks)
    np.testing.assert_array_equal(ious, same_ious)
    np.testing.assert_array_equal(low_res, same_low_res)
    assert masks.any() and not masks.all()


def test_low_resolution_logits_are_bounded_and_go_back_in(predictor):
    _, _, low_res = predictor.predict(**CLICK)
    assert np.abs(low_res).max() <= 32
    once, _, _ = predictor.predict(**CLICK, multimask_output=False, return_logits=True)
    again, _, _ = predictor.predict(
        **CLICK, mask_input=low_res[:1], multimask_output=False, return_logits=True
    )
    assert np.abs(once - again).max() > 0.01


def test_pictures_of_either_kind_are_the_same(predictor, image):
    expected = predictor.predict(**CLICK)[2]
    for same in (
        Image.fromarray(image),
        Image.fromarray(image).convert("RGBA"),  # alpha is dropped
        np.ascontiguousarray(image[:, ::-1])[:, ::-1],  # a view with strides of its own
        np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape),  # read-only
    ):
        predictor.set_image(same)
        np.testing.assert_array_equal(predictor.predict(**CLICK)[2], expected)


def test_coordinates_may_be_shares_of_the_image(predictor):
    in_pixels = predictor.predict(np.array([[48, 16]]), np.array([1]), BOX)
    in_shares = predictor.predict(
        np.array([[0.5, 0.25]]), np.array([1]), BOX / np.tile([WIDTH, HEIGHT], 2),
        normalize_coords=False,
    )
    np.testing.assert_allclose(in_pixels[2], in_shares[2], atol=1e-3)


def test_objects_together_are_what_they_are_alone(predictor):
    boxes = np.stack([BOX, BOX + 8, BOX - 8])
    _, ious, together = predictor.predict(box=boxes)
    for index, box in enumerate(boxes):
        _, iou, alone = predictor.predict(box=box)
        np.testing.assert_allclose(together[index], alone, atol=1e-3)
        np.testing.assert_allclose(ious[index], iou, atol=1e-4)


def test_the_tensor_form_takes_pixels_of_the_models_image(predictor):
    expected = predictor.predict(**CLICK, box=BOX, return_logits=True)
    scale = torch.tensor([SMALL.image_size / WIDTH, SMALL.image_size / HEIGHT])
    tensors = predictor.predict_torch(
        torch.tensor([[[40.0, 30.0]]]) * scale,
        torch.tensor([[1]]),
        torch.from_numpy(BOX).float().view(1, 2, 2) * scale,
        return_logits=True,
    )
    assert tensors[0].shape == (1, 3, HEIGHT, WIDTH)
    for tensor, array in zip(tensors, expected):
        torch.testing.assert_close(tensor[0], torch.from_numpy(array), atol=1e-3, rtol=0)


def test_the_embedding_has_the_shape_that_meta_states(predictor):
    side = SMALL.feature_size
    assert predictor.get_image_embedding().shape == (1, SMALL.hidden_dim, side, side)
    assert predictor.device == torch.device("cpu")


def test_a_second_prediction_does_not_encode_again(image, monkeypatch):
    network = small_network()
    calls = []
    encode = network.encode_image
    monkeypatch.setattr(network, "encode_image", lambda x: calls.append(len(x)) or encode(x))
    predictor = SAM2ImagePredictor(network)
    predictor.set_image(image)
    predictor.predict(**CLICK)
    predictor.predict(box=BOX)
    assert calls == [1]
    predictor.set_image_batch([image, image[:20]])
    predictor.predict_batch(box_batch=[BOX, BOX / 4])
    assert calls == [1, 2]


def test_images_of_any_sizes_go_as_a_batch(image):
    predictor = SAM2ImagePredictor(small_network())
    other = moving_square(1, 50, 30)[0]
    predictor.set_image_batch([image, Image.fromarray(other)])
    masks, ious, low_res = predictor.predict_batch(
        [CLICK["point_coords"], np.array([[9, 9], [30, 20]])],
        [CLICK["point_labels"], np.array([1, 0])],
    )
    assert [mask.shape for mask in masks] == [(3, HEIGHT, WIDTH), (3, 30, 50)]
    assert [iou.shape for iou in ious] == [(3,), (3,)]
    predictor.set_image(image)
    alone = predictor.predict(**CLICK)
    np.testing.assert_allclose(low_res[0], alone[2], atol=1e-3)


@pytest.mark.parametrize(
    "boxes",
    [
        [BOX, BOX / 2],
        np.stack([BOX, BOX / 2]),  # an array serves as a list
        [np.stack([BOX, BOX]), np.stack([BOX, BOX])],  # two objects an image
        [BOX, None],  # no prompt on the second
    ],
)
def test_boxes_of_a_batch_are_one_item_an_image(image, boxes):
    predictor = SAM2ImagePredictor(small_network())
    predictor.set_image_batch([image, image])
    masks, _, _ = predictor.predict_batch(box_batch=boxes, multimask_output=False)
    assert len(masks) == 2


def test_holes_and_specks_are_mended_in_the_masks_only(image):
    plain = SAM2ImagePredictor(small_network())
    mended = SAM2ImagePredictor(small_network(), max_hole_area=8, max_sprinkle_area=8)
    for predictor in (plain, mended):
        predictor.set_image(image)
    before, after = plain.predict(**CLICK), mended.predict(**CLICK)
    assert (before[0] != after[0]).any()
    np.testing.assert_array_equal(before[2], after[2])


def test_the_threshold_is_where_the_mask_ends(image):
    predictor = SAM2ImagePredictor(small_network(), mask_threshold=1.5)
    predictor.set_image(image)
    masks, _, _ = predictor.predict(**CLICK)
    logits, _, _ = predictor.predict(**CLICK, return_logits=True)
    np.testing.assert_array_equal(masks, logits > 1.5)


def test_an_unstable_single_mask_falls_back_to_the_best_of_three(image):
    network = SAM2Network(SMALL)
    weights = small_state_dict()
    for name in weights:  # flat single masks: any shift of the threshold changes them
        if "output_hypernetworks_mlps.0.layers.2" in name:
            weights[name] = weights[name] * 1e-3
    network.load_state_dict(weights)
    network.eval()
    predictor = SAM2ImagePredictor(network)
    predictor.set_image(image)
    single = predictor.predict(**CLICK, multimask_output=False)[2]
    _, ious, three = predictor.predict(**CLICK)
    network.stability_fallback = True
    fallen_back = predictor.predict(**CLICK, multimask_output=False)
    assert not np.array_equal(single, fallen_back[2])
    np.testing.assert_allclose(fallen_back[2][0], three[ious.argmax()], atol=1e-4)
    assert fallen_back[1] == pytest.approx(ious.max())


@pytest.mark.parametrize("call", ["predict", "get_image_embedding"])
@pytest.mark.parametrize("is_reset", [False, True])
def test_without_an_image_there_is_an_error_that_says_what_to_do(image, call, is_reset):
    predictor = SAM2ImagePredictor(small_network())
    if is_reset:
        predictor.set_image(image)
        predictor.reset_predictor()
    with pytest.raises(RuntimeError, match="call set_image"):
        getattr(predictor, call)()


def test_a_batch_prediction_needs_a_batch(predictor):
    with pytest.raises(RuntimeError, match="needs set_image_batch"):
        predictor.predict_batch([CLICK["point_coords"]], [CLICK["point_labels"]])


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros((4, 4), np.uint8), "shape \\(4, 4\\)"),  # gray
        (np.zeros((4, 4, 4), np.uint8), "shape \\(4, 4, 4\\)"),  # alpha
        (np.zeros((3, 4, 4), np.uint8), "shape \\(3, 4, 4\\)"),  # channels first
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        ("cat.jpg", "must be"),
    ],
)
def test_what_is_no_rgb_picture_is_refused(bad, message):
    predictor = SAM2ImagePredictor(small_network())
    with pytest.raises(ValueError, match=message):
        predictor.set_image(bad)
    with pytest.raises(ValueError, match=message):
        predictor.set_image_batch([bad])


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="image_list is empty"):
        SAM2ImagePredictor(small_network()).set_image_batch([])


NAN = float("nan")


@pytest.mark.parametrize(
    "prompt, message",
    [
        ({"point_coords": np.zeros((1, 2))}, "given together"),
        ({"point_labels": np.zeros(1)}, "given together"),
        ({"point_coords": np.zeros((2, 2)), "point_labels": np.ones(1)}, "labels have shape"),
        ({"point_coords": np.zeros(2), "point_labels": np.ones(1)}, "points have shape \\(2,\\)"),
        ({"point_coords": np.zeros((1, 3)), "point_labels": np.ones(1)}, "\\(1, 1, 3\\)"),
        ({"point_coords": np.full((1, 2), NAN), "point_labels": np.ones(1)}, "nan.*finite"),
        ({"point_coords": np.zeros((1, 2)), "point_labels": np.full(1, 7)}, "labels \\[7\\]"),
        ({"point_coords": np.array([[97, 5]]), "point_labels": np.ones(1)}, "97.*inside"),
        ({"point_coords": np.array([[5, -1]]), "point_labels": np.ones(1)}, "-1.*inside"),
        ({"box": np.array([1, 2, 3])}, "3 numbers"),
        ({"box": np.array([50, 10, 10, 50])}, "x_min <= x_max"),
        ({"box": np.array([[1, 1, 5, 5], [1, 9, 5, 5]])}, "\\[1.0, 9.0, 5.0, 5.0\\]"),
        ({"box": np.array([1, NAN, 5, 5])}, "nan.*finite"),
        ({**CLICK, "box": np.stack([BOX, BOX])}, "2 boxes for points of 1 objects"),
        ({"mask_input": np.zeros((LOW, LOW))}, f"mask_input has shape \\({LOW}, {LOW}\\)"),
        ({"mask_input": np.zeros((1, 8, 8))}, "\\(1, 1, 8, 8\\)"),
    ],
)
def test_a_bad_prompt_is_refused_with_what_is_wrong(predictor, prompt, message):
    with pytest.raises(ValueError, match=message):
        predictor.predict(**prompt)


@pytest.mark.parametrize(
    "name", ["point_coords_batch", "point_labels_batch", "box_batch", "mask_input_batch"]
)
def test_a_list_that_does_not_match_the_images_is_refused(image, name):
    predictor = SAM2ImagePredictor(small_network())
    predictor.set_image_batch([image, image])
    with pytest.raises(ValueError, match=f"{name} has 1 items for 2 images"):
        predictor.predict_batch(**{name: [None]})
