// What is said of an object on a frame, as the API has it. Nothing is changed in place.

/** One more click. A painted mask stands alone, so it goes. */
export function withPoint(prompts, point) {
  const { mask, ...rest } = prompts ?? {};
  return { points: [...(rest.points ?? []), point], ...(rest.box ? { box: rest.box } : {}) };
}

/** Null when nothing is left. */
export function withoutPoint(prompts, number) {
  const points = prompts.points.filter((_, i) => i !== number);
  const found = {};
  if (points.length) found.points = points;
  if (prompts.box) found.box = prompts.box;
  return Object.keys(found).length ? found : null;
}

export function withBox(prompts, box) {
  return prompts?.points ? { points: prompts.points, box } : { box };
}
