// The list of objects: one row each, changed in place, so that the focus stays where it is.

import { toHex } from "./colours.js";
import { element, part, setIcon, setName, setText } from "./dom.js";
import { drawSpark, probability } from "./spark.js";

export class ObjectList {
  /**
   * `choices`: the project's labels, or null when any text will do.
   * `actions`: {select(id), label(id, text), colour(id, hex), hide(id), remove(id)}.
   */
  constructor(choices, actions) {
    this._choices = choices;
    this._actions = actions;
    this._rows = new Map();
    part("objects").replaceChildren();
  }

  /**
   * `objects`: in their order, {id, name, label, colour, isHidden, score, hasMask,
   * course, stretches, promptedFrames}; score is undefined where nothing
   * is known.
   */
  render(objects, selectedId, frameCount) {
    const ids = new Set(objects.map(({ id }) => id));
    this._rows.forEach((row, id) => {
      if (ids.has(id)) return;
      row.item.remove();
      this._rows.delete(id);
    });
    objects.forEach((object, number) => {
      if (!this._rows.has(object.id)) this._rows.set(object.id, this._made(object.id));
      const { item } = this._rows.get(object.id);
      const list = part("objects");
      if (list.children[number] !== item) list.insertBefore(item, list.children[number] ?? null);
      this._fill(this._rows.get(object.id), object, number + 1, selectedId, frameCount);
    });
    part("no-objects").hidden = objects.length > 0;
  }

  /** Puts the line of the shown frame into each plot. `share`: of the plots' width. */
  movePlayhead(share) {
    this._rows.forEach(({ line }) => { line.style.left = `${100 * share}%`; });
  }

  /** Draws all plots again, at the size they have now. */
  redraw() {
    this._rows.forEach((row) => { row.drawn = null; });
  }

  focusName(id) {
    this._rows.get(id)?.field.focus();
  }

  scrollTo(id) {
    this._rows.get(id)?.item.scrollIntoView({ block: "nearest" });
  }

  _made(id) {
    const item = part("object").content.firstElementChild.cloneNode(true);
    const find = (selector) => item.querySelector(selector);
    const row = {
      item, number: find(".number"), swatch: find(".swatch"), score: find(".score"),
      hide: find(".hide"), remove: find(".delete"), canvas: find("canvas"),
      line: find(".spark i"), field: this._field(), drawn: null,
    };
    find(".name").append(row.field);
    row.number.addEventListener("change", () => this._actions.select(id));
    row.swatch.addEventListener("input", () => this._actions.colour(id, row.swatch.value));
    row.hide.addEventListener("click", () => this._actions.hide(id));
    row.remove.addEventListener("click", () => this._actions.remove(id));
    row.field.addEventListener("change", () => this._actions.label(id, row.field.value.trim()));
    row.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") part("canvas").focus();
    });
    item.addEventListener("pointerdown", () => this._actions.select(id));
    return row;
  }

  _field() {
    if (!this._choices) {
      return element("input", { type: "text", maxLength: 200, autocomplete: "off" });
    }
    const options = ["", ...this._choices].map((label) => (
      element("option", { value: label }, label || "no label")
    ));
    return element("select", {}, ...options);
  }

  _fill(row, object, number, selectedId, frameCount) {
    const { item, field, swatch } = row;
    const isSelected = object.id === selectedId;
    const title = `object ${number}${object.label ? `, ${object.label}` : ""}`;
    item.classList.toggle("selected", isSelected);
    item.classList.toggle("hidden", object.isHidden);
    item.dataset.id = object.id;
    row.number.checked = isSelected;
    row.number.dataset.number = number;
    row.number.setAttribute("aria-label", `Select ${title}`);
    swatch.value = toHex(object.colour);
    swatch.setAttribute("aria-label", `Colour of ${title}`);
    this._fillField(field, object, number);
    setText(row.score, scoreText(object));
    row.score.title = "How sure the model is that the object is on this frame";
    const [icon, act] = object.isHidden ? ["eye-off", "Show"] : ["eye", "Hide"];
    setIcon(row.hide, icon, `${act} ${title}`);
    row.hide.setAttribute("aria-pressed", String(object.isHidden));
    setIcon(row.remove, "delete", `Delete ${title}`);
    this._draw(row, object, frameCount);
  }

  _fillField(field, object, number) {
    setName(field, `${this._choices ? "Label" : "Name"} of object ${number}`);
    if (document.activeElement === field) return; // somebody writes there
    if (this._choices) addOption(field, object.label);
    else field.placeholder = `Object ${number}`;
    field.value = object.label;
  }

  _draw(row, object, frameCount) {
    const { course, stretches, promptedFrames } = object;
    const key = [object.colour, row.canvas.clientWidth, promptedFrames, frameCount].join();
    if (row.drawn?.course === course && row.drawn.key === key) return;
    row.drawn = { course, key };
    drawSpark(row.canvas, { ...object, colour: toHex(object.colour) }, frameCount);
    row.canvas.setAttribute("aria-label", courseText(course, stretches, promptedFrames));
  }
}

/** A label that an object has need not be one of the project's. */
function addOption(select, label) {
  if ([...select.options].some(({ value }) => value === label)) return;
  select.append(element("option", { value: label }, label));
}

function scoreText({ score, hasMask }) {
  if (score === undefined) return "–";
  return hasMask ? `${Math.round(100 * probability(score))} %` : "not seen";
}

function courseText(course, stretches, promptedFrames) {
  const marks = `marked on ${promptedFrames.length} frames`;
  if (!course) return `Not tracked yet, ${marks}`;
  const seen = course.areas.filter((area) => area > 0).length;
  const doubtful = stretches.reduce((sum, { start, stop }) => sum + stop - start, 0);
  const doubt = doubtful ? `${doubtful} of them doubtful` : "none doubtful";
  return `Seen on ${seen} frames, ${doubt}, ${marks}`;
}
