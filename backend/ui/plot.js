// Scores of a job's objects over its frames, as SVG.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 560;
const HEIGHT = 190;
const LEFT = 62;
const RIGHT = 8;
const TOP = 16;
const BOTTOM = 24;
const MOST_POINTS = 1000;

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The objects' probabilities: an <svg>, its text for those who do not see it in aria-label. */
export function scorePlot(objects) {
  const frames = objects.flatMap((object) => [object.frames[0], object.frames.at(-1)]);
  const first = Math.min(...frames);
  const last = Math.max(...frames, first + 1);
  const x = (frame) => LEFT + ((frame - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value) * (HEIGHT - TOP - BOTTOM);
  const plot = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": described(objects, first, last),
  });
  for (const object of objects) {
    for (const { start, stop } of object.doubtful) {
      const right = Math.max(x(Math.min(stop, last)), x(start) + 2);
      plot.append(shape("rect", {
        class: "doubt", x: x(start), y: TOP, width: right - x(start), height: y(0) - TOP,
      }));
    }
  }
  for (const value of [0, 0.5, 1]) {
    plot.append(shape("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
    plot.append(shape("text", {
      class: "label", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end",
    }, `${100 * value} %`));
  }
  const below = HEIGHT - 7;
  plot.append(shape("text", { class: "label", x: LEFT, y: below }, `frame ${first}`));
  plot.append(shape("text", { class: "label", x: WIDTH - RIGHT, y: below, "text-anchor": "end" }, `${last}`));
  for (const object of objects) {
    const path = curve(object, x, y);
    plot.append(shape("path", { class: "casing", d: path })); // light colours need an edge
    plot.append(shape("path", {
      class: "curve", stroke: object.colour, d: path,
      "stroke-dasharray": object.dashed ? "6 4" : "none",
    }));
  }
  return plot;
}

function curve({ frames, probabilities }, x, y) {
  const step = Math.max(1, Math.ceil(frames.length / MOST_POINTS));
  let path = "";
  let isDrawing = false;
  for (let begin = 0; begin < frames.length; begin += step) {
    // The lowest of those that share a point: a short doubt must be seen.
    const known = probabilities.slice(begin, begin + step).filter((value) => value !== null);
    if (known.length === 0) {
      isDrawing = false;
      continue;
    }
    path += `${isDrawing ? "L" : "M"}${x(frames[begin]).toFixed(1)} ${y(Math.min(...known)).toFixed(1)}`;
    if (!isDrawing) path += "h0.1"; // a frame alone is a dot
    isDrawing = true;
  }
  return path;
}

function described(objects, first, last) {
  const lowest = objects.map((object) => {
    const known = object.probabilities.filter((value) => value !== null);
    const low = known.length ? known.reduce((a, b) => Math.min(a, b)) : null;
    return `${nameOf(object)} ${low === null ? "without a score" : `at least ${percent(low)}`}`;
  });
  return `Scores from frame ${first} to ${last}: ${lowest.join(", ")}`;
}

/** The objects by colour: a list. */
export function legend(objects) {
  const list = document.createElement("ul");
  for (const object of objects) {
    const item = document.createElement("li");
    const swatch = shape("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" });
    swatch.append(shape("rect", { width: 10, height: 10, rx: 2, fill: object.colour }));
    const doubtful = object.doubtful.reduce((sum, { start, stop }) => sum + stop - start, 0);
    const doubt = doubtful ? `, ${doubtful} of ${object.frames.length} frames doubtful (shaded)` : "";
    item.append(swatch, `${nameOf(object)}${doubt}`);
    list.append(item);
  }
  return list;
}

function nameOf(object) {
  return object.labels.join(", ") || `object ${object.id}`;
}

function percent(value) {
  return `${Math.round(100 * value)} %`;
}
