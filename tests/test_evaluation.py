"""The parts of a report: calibration, views, damage, attribution, groups, labels to doubt, pages."""

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fer_lightning.errors import InputError
from fer_lightning.evaluation.attribution import occlusion_maps
from fer_lightning.evaluation.averaging import VIEWS
from fer_lightning.evaluation.calibration import abstaining, fit_temperature, reliability
from fer_lightning.evaluation.card import LICENCES, training_in_words
from fer_lightning.evaluation.corruptions import CORRUPTIONS, STRENGTHS
from fer_lightning.evaluation.figures import groups_figure
from fer_lightning.evaluation.groups import _sorted, gaps, read_groups
from fer_lightning.evaluation.label_noise import suspicious_labels
from fer_lightning.evaluation.page import write_report
from fer_lightning.evaluation.scores import Score
from fer_lightning.evaluation.section import Section
from fer_lightning.inference.predictor import softmax
from fer_lightning.settings.config import CONF_DIR


def test_model_cards_know_the_licence_of_every_dataset():
    datasets = {path.stem for path in (CONF_DIR / "data").glob("[!_]*.yaml")} - {"folder"}
    assert "fer2013" in datasets
    assert datasets <= LICENCES.keys()


def test_a_training_is_told_with_every_network_it_was_made_from_once():
    first, second = ({"dataset": "faces", "seed": seed} for seed in (1, 2))
    third = {"dataset": "faces", "seed": 3, "initial_weights": first}
    made = {"dataset": "faces", "initial_weights": third, "teachers": [third, second | {"teachers": [first]}]}
    assert training_in_words(made) == (
        "faces. It began with weights of faces, seed 3. It learned from the answers of 2 networks of faces, seed 3; "
        "faces, seed 2. These were made from networks of faces, seed 1."
    )
    assert training_in_words({}) == "data that the model file does not name."


class TestCalibration:
    def test_the_temperature_that_logits_were_multiplied_by_is_found(self):
        generator = np.random.default_rng(0)
        logits = generator.normal(0, 2, (20_000, 4))
        targets = np.array([generator.choice(4, p=row) for row in softmax(logits)])
        assert fit_temperature(3 * logits, targets) == pytest.approx(3, rel=0.05)

    def test_without_a_mistake_there_is_no_temperature(self):
        assert fit_temperature(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 1])) is None

    def test_reliability_sets_confidence_beside_accuracy(self):
        probabilities = np.array([[0.9, 0.1]] * 10 + [[0.55, 0.45]] * 4)
        table = reliability(probabilities, np.array([0] * 9 + [1] + [0, 1, 1, 1]))
        assert table.confidence.tolist() == pytest.approx([0.55, 0.9])
        assert table.accuracy.tolist() == pytest.approx([0.25, 0.9])
        assert table.images.tolist() == [4, 10]

    def test_abstaining_answers_fewer_and_is_right_more_often(self):
        probabilities = np.array([[0.96, 0.04], [0.6, 0.4], [0.55, 0.45]])
        table = abstaining(probabilities, np.array([0, 0, 1])).set_index("threshold")
        assert table.loc[0.0].tolist() == pytest.approx([1, 2 / 3])
        assert table.loc[0.6].tolist() == pytest.approx([2 / 3, 1])
        assert table.loc[0.95].tolist() == pytest.approx([1 / 3, 1])


class TestViews:
    @pytest.mark.parametrize("shape", [(2, 48, 48), (2, 30, 30, 3)])
    @pytest.mark.parametrize("averaging", VIEWS)
    def test_there_are_as_many_as_said_of_the_same_shape_the_image_first(self, averaging, shape):
        images = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
        seen = [view(images) for view in VIEWS[averaging]]
        assert len(seen) == {"none": 1, "flip": 2, "flip_shift": 10}[averaging]
        assert {view.shape for view in seen} == {shape}
        np.testing.assert_array_equal(seen[0], images)
        assert len({view.tobytes() for view in seen}) == len(seen)

    def test_a_moved_view_is_the_image_two_pixels_further(self):
        images = np.random.default_rng(0).integers(0, 255, (1, 48, 48), np.uint8)
        right = VIEWS["flip_shift"][1](images)
        np.testing.assert_array_equal(right[:, :, :46], images[:, :, 2:])


class TestDamage:
    @pytest.mark.parametrize("name", CORRUPTIONS)
    def test_each_strength_does_more_harm_and_the_same_each_time(self, name, photo):
        gray = cv2.cvtColor(photo[20:220, 130:330], cv2.COLOR_BGR2GRAY)
        faces = cv2.resize(gray, (48, 48), interpolation=cv2.INTER_AREA)[None]
        changes = []
        for strength in STRENGTHS:
            damaged, again = (CORRUPTIONS[name].batch(faces, strength, np.random.default_rng(1)) for _ in range(2))
            assert (damaged.shape, damaged.dtype) == (faces.shape, np.uint8)
            np.testing.assert_array_equal(damaged, again)
            changes.append(np.abs(damaged.astype(float) - faces).mean())
        assert changes == sorted(changes)
        assert changes[0] > 0

    @pytest.mark.parametrize("name", CORRUPTIONS)
    def test_colour_and_other_sizes_are_taken_too(self, name):
        faces = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
        assert CORRUPTIONS[name].batch(faces, 3, np.random.default_rng(0)).shape == faces.shape


def test_an_answer_rests_on_the_place_that_decides_it():
    def bright_above(images: np.ndarray) -> np.ndarray:
        share = images[:, 0, :16].mean(axis=(1, 2))
        return np.stack([share, 1 - share], axis=1)

    images = np.zeros((3, 1, 48, 48), np.float32)
    images[:, 0, :16, 20:32] = 1.0
    maps = occlusion_maps(bright_above, images, np.zeros(3, int))
    assert maps.shape == (3, 48, 48)
    assert maps[:, 4:12, 24:28].mean() > 0.05
    assert np.abs(maps[:, 32:]).max() == 0


def test_no_gap_is_told_between_groups_of_a_few_images():
    def table(*sizes: int) -> pd.DataFrame:
        scores = [Score(value, np.nan, np.nan) for value in (1.0, 0.5)]
        shown = dict.fromkeys(("acc", "balanced_acc", "f1_macro"), scores)
        return pd.DataFrame({"images": sizes, "classes": 7} | shown)

    assert gaps(table(40, 60)) == pytest.approx(dict.fromkeys(("acc", "balanced_acc", "f1_macro"), 0.5))
    assert gaps(table(40, 10)) == {}
    assert gaps(table(40, 60).assign(people=[12, 9])) == {}
    assert gaps(table(40, 60).assign(people=[12, 10]))["acc"] == pytest.approx(0.5)
    assert gaps(table(40, 60).assign(classes=[7, 2])).keys() == {"acc", "balanced_acc"}


def test_groups_that_are_numbers_stand_in_their_order():
    assert _sorted(["100", "18", "unknown", "2.5"]) == ["2.5", "18", "100", "unknown"]
    assert _sorted(["b", "10", "a"]) == ["10", "a", "b"]


def test_a_column_that_is_no_group_is_refused_and_a_comma_too_many_is_not(tmp_path):
    names = [f"{number}.png" for number in range(51)]
    path = tmp_path / "groups.csv"
    path.write_text("image,yaw\n" + "".join(f"{name},{number}\n" for number, name in enumerate(names)))
    with pytest.raises(InputError, match="yaw has 51 values: put them into at most 50 ranges first"):
        read_groups(str(path), names)
    path.write_text("image,yaw\n" + "".join(f"{name},left,\n" for name in names))
    assert set(read_groups(str(path), names)["yaw"]) == {"left"}


def test_a_groups_name_may_hold_dollar_signs():
    score = Score(0.5, 0.4, 0.6)
    table = pd.DataFrame({"group": ["$20k-$40k", "under $20% to $30%"], "images": [40, 60], "acc": [score, score]})
    groups_figure(table, "income").canvas.draw()


def test_a_label_is_doubted_where_another_class_is_claimed_with_confidence():
    generator = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], 100)
    probabilities = np.full((300, 3), 0.1)
    probabilities[np.arange(300), targets] = 0.8 + generator.uniform(-0.1, 0.1, 300)
    probabilities[[5, 150]] = [[0.02, 0.96, 0.02], [0.1, 0.0, 0.9]]  # contradicted; the first with the larger margin
    probabilities[7] = [0.3, 0.4, 0.3]  # wrong, and not sure of it
    probabilities[9] = [0.5, 0.48, 0.02]  # as sure of another as it usually is, and surer of the label
    targets[200:210], probabilities[200:210] = 1, [0.3, 0.35, 0.35]  # which makes little of class 1 its usual
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert suspicious_labels(probabilities, targets).tolist() == [5, 150]


class TestPage:
    def written(self, folder, **parts) -> str:
        section = Section(key="part", title="A <part>", **parts)
        write_report(folder, "Report", ["Of <b>it</b>"], [section], {"model": "m"}, "# Card")
        return (folder / "index.html").read_text()

    def test_it_needs_nothing_beside_it_and_takes_no_name_for_html(self, tmp_path):
        page = self.written(tmp_path, text=("5 < 6",), figures={"picture": Figure()})
        assert "A &lt;part&gt;" in page
        assert "Of &lt;b&gt;it&lt;/b&gt;" in page
        assert "data:image/png;base64," in page
        assert "http" not in page
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "model_card.md").read_text() == "# Card"

    def test_scores_are_one_cell_of_the_page_and_three_columns_of_the_csv(self, tmp_path):
        table = pd.DataFrame({"class": ["happy"], "recall": [Score(0.5, 0.4, 0.6)]})
        assert "0.500 [0.400, 0.600]" in self.written(tmp_path, tables={"classes": table})
        assert (tmp_path / "classes.csv").read_text() == "class,recall,recall_low,recall_high\nhappy,0.5,0.4,0.6\n"

    def test_a_long_table_is_cut_on_the_page_alone(self, tmp_path):
        page = self.written(tmp_path, tables={"long": pd.DataFrame({"row": range(1000)})})
        assert "all are in long.csv" in page
        assert len(pd.read_csv(tmp_path / "long.csv")) == 1000
