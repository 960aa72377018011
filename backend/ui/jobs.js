// The page of jobs: asks /api/jobs again and again, and keeps one card a job.

import { legend, scorePlot } from "./plot.js";

const API = new URL("../api/jobs", import.meta.url);
const HEALTH = new URL("../health", import.meta.url);
const FILTERS = [
  ["all", "All", ""],
  ["active", "Waiting and running", "queued,running"],
  ["done", "Done", "done"],
  ["failed", "Failed", "failed"],
  ["cancelled", "Cancelled", "cancelled"],
];
const BUSY_MILLISECONDS = 2000;
const IDLE_MILLISECONDS = 10000;
const PAGE = 30;
const MOST = 500;

const part = (id) => document.getElementById(id);
const cards = new Map();
let filter = FILTERS.find(([name]) => name === location.hash.slice(1)) ?? FILTERS[0];
let limit = PAGE;
let timer;
let asked = 0;

async function asJson(url, options) {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch {
    throw new Error("the service cannot be reached");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.detail || `the service answered ${answer.status}`);
  return body;
}

async function refresh() {
  clearTimeout(timer);
  const number = ++asked;
  let pause = IDLE_MILLISECONDS;
  try {
    const url = new URL(API);
    url.searchParams.set("limit", limit);
    if (filter[2]) url.searchParams.set("state", filter[2]);
    const [listed, health] = await Promise.all([asJson(url), asJson(HEALTH)]);
    if (number !== asked) return; // a newer question is under way
    show(listed);
    showModel(health);
    say("");
    if (listed.counts.queued + listed.counts.running > 0) pause = BUSY_MILLISECONDS;
  } catch (error) {
    if (number !== asked) return;
    part("jobs").setAttribute("aria-busy", "false");
    if (!cards.size) setText(part("summary"), "");
    say(`The jobs cannot be shown: ${error.message}. Trying again …`);
  }
  timer = setTimeout(refresh, pause);
}

function say(problem) {
  part("problem").hidden = !problem;
  setText(part("problem"), problem);
}

function setText(element, text) {
  // Only what is new is read out.
  if (element.textContent !== text) element.textContent = text;
}

function showModel(health) {
  const state = health.model === "ready" ? "" : ` (${health.model})`;
  const detail = health.detail ? `: ${health.detail}` : "";
  setText(part("model"), `Model ${health.model_version}${state}${detail}`);
}

// --- filters -----------------------------------------------------------------

function makeFilters() {
  for (const choice of FILTERS) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.filter = choice[0];
    button.textContent = choice[1];
    button.addEventListener("click", () => {
      filter = choice;
      limit = PAGE;
      history.replaceState(null, "", `#${choice[0]}`);
      markFilter();
      refresh();
    });
    item.append(button);
    part("filters").append(item);
  }
  markFilter();
}

function markFilter() {
  for (const button of part("filters").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.filter === filter[0]));
  }
}

function showCounts(counts) {
  for (const [name, title, states] of FILTERS) {
    const chosen = states ? states.split(",") : Object.keys(counts);
    const count = chosen.reduce((sum, state) => sum + counts[state], 0);
    setText(part("filters").querySelector(`[data-filter="${name}"]`), `${title} (${count})`);
  }
}

// --- cards -------------------------------------------------------------------

function show({ jobs, next_offset: next, counts }) {
  showCounts(counts);
  const list = part("jobs");
  list.setAttribute("aria-busy", "false");
  const wanted = new Set(jobs.map((job) => job.id));
  for (const [id, card] of cards) {
    if (!wanted.has(id)) {
      card.remove();
      cards.delete(id);
    }
  }
  jobs.forEach((job, place) => {
    const card = cards.get(job.id) ?? makeCard(job);
    // Moving an element takes the focus from it.
    if (list.children[place] !== card) list.insertBefore(card, list.children[place] ?? null);
    fill(card, job);
  });
  part("more").hidden = next === null || limit >= MOST;
  const none = filter[0] === "all"
    ? "No jobs yet. Label something in Label Studio, or send a task to /api/jobs."
    : "No jobs in this state.";
  setText(part("summary"), jobs.length ? `${jobs.length}${next === null ? "" : " newest"} jobs` : none);
}

function makeCard(job) {
  const card = part("job").content.firstElementChild.cloneNode(true);
  const name = nameOf(job);
  card.querySelector("h2").textContent = name;
  card.querySelector("progress").setAttribute("aria-label", `Progress of ${name}`);
  const button = card.querySelector(".cancel");
  button.setAttribute("aria-label", `Cancel ${name}`);
  button.addEventListener("click", () => cancel(job, button));
  cards.set(job.id, card);
  return card;
}

function nameOf(job) {
  const project = job.project === null ? "" : `project ${job.project}`;
  if (job.kind === "finetune") return `Fine-tuning on ${project}`;
  const task = job.task === null ? `Job ${job.id.slice(0, 8)}` : `Task ${job.task}`;
  return [task, project].filter(Boolean).join(", ");
}

function fill(card, job) {
  const isActive = job.state === "queued" || job.state === "running";
  const badge = card.querySelector(".badge");
  badge.dataset.state = job.state;
  setText(badge, job.state);
  card.querySelector(".cancel").hidden = !isActive;
  fillProgress(card, job);
  setText(card.querySelector(".times"), times(job));
  const reason = card.querySelector(".reason");
  reason.hidden = !job.error;
  setText(reason, job.error ?? "");
  const leftOut = card.querySelector(".left-out");
  leftOut.hidden = !job.left_out;
  setText(leftOut, job.left_out ? `Left out: ${job.left_out.regions.join("; ")}` : "");
  fillPrediction(card.querySelector(".prediction"), job);
  if (job.state === "done" && job.has_result && !card.dataset.found) {
    card.dataset.found = job.id;
    card.querySelector(".found").hidden = false;
    inView.observe(card);
  }
}

function fillProgress(card, job) {
  const { done, total } = job.progress;
  card.querySelector(".running").hidden = job.state !== "running";
  const bar = card.querySelector("progress");
  if (total) {
    bar.max = total;
    bar.value = done;
  } else {
    bar.removeAttribute("value");
  }
  const unit = job.kind === "finetune" ? "step" : "frame";
  setText(card.querySelector(".count"), total ? `${unit} ${done} of ${total}` : "preparing");
}

function fillPrediction(line, job) {
  const { prediction } = job;
  line.hidden = prediction === null;
  if (prediction === null) return;
  line.dataset.state = prediction.state;
  const reason = prediction.error ? `: ${prediction.error}` : "";
  const next = prediction.next_attempt_at ? `, next attempt ${clock(prediction.next_attempt_at)}` : "";
  const texts = {
    posted: `Prediction ${prediction.prediction_id ?? ""} is in Label Studio`,
    waiting: `Prediction waits to be posted (attempts: ${prediction.attempts}${next})${reason}`,
    refused: `Label Studio refused the prediction${reason}`,
  };
  setText(line, texts[prediction.state]);
}

function times(job) {
  const texts = [`Ordered ${clock(job.created_at)}`];
  if (job.started_at && job.finished_at) {
    texts.push(`took ${duration(new Date(job.finished_at) - new Date(job.started_at))}`);
  } else if (job.started_at && job.state === "running") {
    texts.push(`began ${clock(job.started_at)}`);
  }
  if (job.attempts > 1) texts.push(`begun ${job.attempts} times`);
  if (job.model && job.state === "done") texts.push(`model ${job.model}`);
  return texts.join(" · ");
}

function clock(text) {
  const time = new Date(text);
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday ? time.toLocaleTimeString() : time.toLocaleString();
}

function duration(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

async function cancel(job, button) {
  if (!confirm(`Cancel ${nameOf(job)}? What it has done so far is lost.`)) return;
  button.disabled = true;
  try {
    await asJson(new URL(`jobs/${job.id}/cancel`, API), {
      method: "POST",
      headers: { "X-Requested-With": "fetch" },
    });
    part("jobs").focus(); // the button goes
  } catch (error) {
    say(`The job cannot be cancelled: ${error.message}`);
  } finally {
    button.disabled = false;
  }
  refresh();
}

// --- what was found ----------------------------------------------------------

// One after the other, those in sight first: drawing takes the server's time.
const waiting = [];
let isLoading = false;

const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    inView.unobserve(target);
    waiting.push(target);
  }
  loadWaiting();
}, { rootMargin: "200px" });

async function loadWaiting() {
  if (isLoading) return;
  isLoading = true;
  while (waiting.length) await loadFound(waiting.shift());
  isLoading = false;
}

async function loadFound(card) {
  const base = new URL(`jobs/${card.dataset.found}/`, API);
  try {
    const { objects } = await asJson(new URL("scores", base));
    if (objects.length) {
      card.querySelector(".plot").replaceChildren(scorePlot(objects));
      card.querySelector("figcaption").replaceChildren(legend(objects));
    }
    await loadPicture(card, new URL("preview.png", base), objects);
  } catch (error) {
    card.querySelector(".preview").hidden = true;
    card.querySelector("figure").hidden = !card.querySelector(".plot").hasChildNodes();
    const line = card.querySelector(".missing");
    line.hidden = false;
    line.textContent = `No preview: ${error.message}`;
  }
}

function loadPicture(card, url, objects) {
  const link = card.querySelector(".preview");
  const picture = link.querySelector("img");
  const labels = [...new Set(objects.flatMap((object) => object.labels))].join(", ");
  picture.alt = `A few frames with the masks drawn in${labels ? `: ${labels}` : ""}`;
  link.href = url;
  return new Promise((resolve, reject) => {
    picture.onload = () => {
      picture.width = picture.naturalWidth;
      picture.height = picture.naturalHeight;
      resolve();
    };
    picture.onerror = () => reject(new Error("the picture cannot be drawn; the log says why"));
    picture.src = url;
  });
}

makeFilters();
part("more").addEventListener("click", () => {
  limit = Math.min(limit + PAGE, MOST);
  refresh();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else refresh();
});
refresh();
