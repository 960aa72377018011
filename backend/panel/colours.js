// A colour for each object: the label's where the project has one, else of the palette that the
// previews use (Okabe and Ito, told apart with any colour vision).

const PALETTE = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [204, 121, 167],
  [240, 228, 66], [213, 94, 0], [0, 114, 178],
];
const VARIATIONS = [0, 0.45, -0.35, 0.7, -0.55];

/**
 * Colours by object id, as [r, g, b].
 *
 * `objects`: in their order, [{id, labels}]. `labelColours`: "#rrggbb" by label. `chosen`:
 * "#rrggbb" by object id, what a person has picked.
 */
export function coloursOf(objects, labelColours, chosen) {
  const used = new Map();
  const colours = new Map();
  objects.forEach(({ id, labels }, number) => {
    const picked = fromHex(chosen[id]);
    const label = labels.map((name) => labelColours.get(name)).find(Boolean);
    const base = fromHex(label) ?? PALETTE[number % PALETTE.length];
    const key = base.join();
    const count = used.get(key) ?? 0;
    if (!picked) used.set(key, count + 1);
    colours.set(id, picked ?? shaded(base, VARIATIONS[count % VARIATIONS.length]));
  });
  return colours;
}

/** Lighter (above 0) or darker (below), so that objects of one label can be told apart. */
function shaded(colour, amount) {
  const end = amount > 0 ? 255 : 0;
  return colour.map((part) => Math.round(part + (end - part) * Math.abs(amount)));
}

/** [r, g, b] of "#rrggbb"; null for anything else. */
function fromHex(text) {
  const found = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(text ?? "");
  return found && found.slice(1).map((part) => parseInt(part, 16));
}

export function toHex(colour) {
  return `#${colour.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}
