// Small helpers around the page's elements.

const SVG = "http://www.w3.org/2000/svg";

export const part = (id) => document.getElementById(id);

/** Only what differs is set, so that nothing is read aloud again. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** An element with its children, texts among them. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

/** Gives a button one of the page's icons, and a name for those who do not see it. */
export function setIcon(button, name, label) {
  if (button.dataset.shown !== name) {
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("aria-hidden", "true");
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", `#i-${name}`);
    picture.append(use);
    button.replaceChildren(picture);
    button.dataset.shown = name;
  }
  setName(button, label);
}

/** What a button is called, also when the pointer rests on it. */
export function setName(button, label) {
  if (button.getAttribute("aria-label") === label) return;
  button.setAttribute("aria-label", label);
  button.title = label;
}

/** A canvas as large as it is shown, cleared; its context's unit is a CSS pixel. */
export function cleared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const pixels = [width, height].map((size) => Math.max(1, Math.round(size * devicePixelRatio)));
  if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) {
    [canvas.width, canvas.height] = pixels;
  }
  const context = canvas.getContext("2d");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Calls at most once in so long; the last call counts. */
export function throttled(call, milliseconds) {
  let timer;
  const later = () => {
    timer ??= setTimeout(() => {
      timer = undefined;
      call();
    }, milliseconds);
  };
  later.cancel = () => {
    clearTimeout(timer);
    timer = undefined;
  };
  return later;
}
