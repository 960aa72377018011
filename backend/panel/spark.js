// An object's course as a small plot: how sure the model is, and where that is doubtful.

import { cleared } from "./dom.js";

const PADDING = 3;
const DOUBT = "rgb(242 184 75 / 38%)";
const DOUBT_EDGE = "#f2b84b";

/**
 * `object`: {course, stretches, promptedFrames, colour}. Frames from 0 to `count` share the
 * canvas's width.
 */
export function drawSpark(canvas, { course, stretches, promptedFrames, colour }, count) {
  const { context, width, height } = cleared(canvas);
  const x = (frame) => (frame / count) * width;
  const y = (share) => PADDING + (1 - share) * (height - 2 * PADDING);
  for (const { start, stop } of stretches) {
    const left = x(start);
    const size = Math.max(2, x(stop) - left);
    context.fillStyle = DOUBT;
    context.fillRect(left, 0, size, height);
    context.fillStyle = DOUBT_EDGE;
    context.fillRect(left, height - 2, size, 2);
  }
  if (course) drawCurve(context, course, { x, y, width, count, colour });
  context.fillStyle = "#fff";
  for (const frame of promptedFrames) context.fillRect(x(frame + 0.5) - 1, 0, 2, 5);
}

function drawCurve(context, course, { x, y, width, count, colour }) {
  const step = Math.max(1, Math.floor(count / Math.max(1, width)));
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.beginPath();
  let isDrawing = false;
  for (let i = 0; i < course.scores.length; i += step) {
    // The lowest of those that share a point: a short doubt must be seen.
    const near = course.scores.slice(i, i + step).filter((score) => !Number.isNaN(score));
    if (near.length === 0) {
      isDrawing = false;
      continue;
    }
    const point = [x(course.first + i + 0.5), y(probability(Math.min(...near)))];
    if (isDrawing) {
      context.lineTo(...point);
    } else {
      context.moveTo(...point);
      context.lineTo(point[0] + 1, point[1]); // a frame alone is a dot
    }
    isDrawing = true;
  }
  context.stroke();
}

/** Of a logit. */
export function probability(score) {
  return 1 / (1 + Math.exp(-score));
}
