// Trainings: the list, one of them live, several compared.

import { ask, call, eventsOf, get, remove } from "./api.js";
import { Curve, LossChart } from "./chart.js";
import { at, bytes, count, define, duration, element, loss, moment } from "./dom.js";
import { complain, Mistake, say, telling } from "./say.js";

const PAGE = 20;
const MOST_COMPARED = 8;
const MOST_SAMPLES = 50;
const REFRESH = 2000;
const AGAIN = 1500;
const SOON = 300;
const LIVE = new Set(["queued", "running"]);

let shown = [];
let next = null;
let run = null; // the one that is looked at: { job, curve, follower }
let chart = null;
const compared = new Map(); // id -> { job, curve }

export function begin() {
  chart = new LossChart(at("run-curve"));
  at("runs-more").addEventListener("click", telling(() => list(next)));
  for (const act of ["pause", "resume", "cancel"]) at(`run-${act}`).addEventListener("click", telling(() => change(act)));
  at("run-delete").addEventListener("click", telling(drop));
  at("run-download").addEventListener("click", telling(() => download("safetensors")));
  at("run-download-onnx").addEventListener("click", telling(() => download("onnx")));
  at("run-write").addEventListener("click", () => {
    location.hash = `#write/${run.job.model_id}`;
  });
  setInterval(refresh, REFRESH);
}

/** The list, and the training of an id if one is given. */
export async function show(id) {
  if (id && run?.job.id !== id) await look(id);
  if (!id) leave();
  await list(null);
}

/** Nothing is followed while another part of the page is shown. */
export function hide() {
  run?.follower.abort();
  run = null;
}

function leave() {
  hide();
  at("run").hidden = true;
}

let refreshing = false;
async function refresh() {
  if (at("runs").hidden || document.hidden || refreshing) return;
  refreshing = true;
  try {
    if (shown.some((job) => LIVE.has(job.status))) {
      merge(await get(`jobs?limit=${PAGE}`));
    }
    for (const [id, other] of compared) {
      if (id === run?.job.id || !LIVE.has(other.job.status)) continue;
      other.job = shown.find((job) => job.id === id) ?? other.job;
      other.curve.replace((await get(`jobs/${id}/metrics`)).data);
      redraw();
    }
  } catch {
    // told by whatever the person does next: a message every two seconds would be in the way
  } finally {
    refreshing = false;
  }
}

async function list(after) {
  const page = await get(`jobs?limit=${PAGE}${after ? `&after=${after}` : ""}`);
  if (!after) return merge(page);
  shown = [...shown, ...page.data];
  next = page.next;
  draw();
}

/** The newest page anew; what was listed beyond it stays. */
function merge(page) {
  const oldest = page.data.at(-1)?.created_at;
  const older = page.next ? shown.filter((job) => job.created_at < oldest) : [];
  if (!older.length) next = page.next;
  shown = [...page.data, ...older];
  draw();
}

/** The rows anew, unless the person is in the midst of one: the focus stays where it was. */
function draw() {
  const body = at("runs-list").tBodies[0];
  const focused = document.activeElement?.id;
  body.replaceChildren(...shown.map(row));
  if (focused && body.contains(at(focused))) at(focused).focus();
  at("runs-more").hidden = !next;
  at("runs-list").hidden = !shown.length;
  at("runs-empty").hidden = shown.length > 0;
}

const network = (job) => `${job.model.cell} ${job.model.num_layers}×${job.model.hidden_size}`;

function row(job) {
  const tick = element("input", { type: "checkbox", id: `compare-${job.id}`, checked: compared.has(job.id), "aria-label": `Compare ${job.name}` });
  tick.addEventListener("change", telling(() => compare(job, tick)));
  const place = job.place ? ` (${job.place})` : "";
  const share = job.status === "running" ? ` ${Math.floor(100 * job.progress.fraction)} %` : place;
  return element(
    "tr",
    run?.job.id === job.id ? { "aria-current": "true" } : {},
    element("td", {}, tick),
    element("td", { className: "name" }, element("a", { href: `#runs/${job.id}`, id: `look-${job.id}` }, job.name)),
    element("td", {}, network(job)),
    element("td", {}, element("span", { className: `badge ${job.status}` }, job.status + share)),
    element("td", { className: "number" }, loss(job.best?.val_loss)),
    element("td", {}, moment(job.created_at)),
  );
}

async function compare(job, tick) {
  if (!tick.checked) compared.delete(job.id);
  else if (compared.size >= MOST_COMPARED) {
    tick.checked = false;
    throw new Mistake(`At most ${MOST_COMPARED} can be compared.`);
  } else {
    const curve = new Curve(job.name);
    curve.replace((await get(`jobs/${job.id}/metrics`)).data);
    compared.set(job.id, { job, curve });
  }
  if (!run) {
    const [first] = compared.keys();
    if (first) location.hash = `#runs/${first}`;
  }
  redraw();
}

function redraw() {
  if (!run) return;
  const others = [...compared.values()].filter((one) => one.job.id !== run.job.id);
  run.curve.label = run.job.name;
  const all = [run, ...others];
  for (const one of all) {
    const twins = all.filter((other) => other.job.name === one.job.name);
    one.curve.label = twins.length > 1 ? `${one.job.name} (${moment(one.job.created_at)}, ${one.job.id.slice(4, 8)})` : one.job.name;
  }
  chart.show(all.map((one) => one.curve));
  const table = at("run-compared");
  table.hidden = !others.length;
  if (others.length) {
    table.replaceChildren(
      element(
        "table",
        {},
        element("caption", {}, "Side by side"),
        element("thead", {}, element("tr", {}, ...["Name", "Network", "Steps", "Last training loss", "Best validation loss", "At step"].map((text) => element("th", { scope: "col" }, text)))),
        element(
          "tbody",
          {},
          ...all.map(({ job, curve }) =>
            element(
              "tr",
              {},
              element("td", { className: "name" }, curve.label),
              element("td", {}, network(job)),
              element("td", { className: "number" }, count(Math.max(0, ...curve.train.keys()))),
              element("td", { className: "number" }, loss(curve.last)),
              element("td", { className: "number" }, loss(curve.best?.value)),
              element("td", { className: "number" }, count(curve.best?.step)),
            ),
          ),
        ),
      ),
    );
  }
}

/** Show a training and follow it to its end. */
async function look(id) {
  leave();
  const job = await get(`jobs/${id}`);
  const mine = { job, curve: new Curve(job.name), follower: new AbortController() };
  run = mine;
  at("run-samples").replaceChildren();
  at("run").hidden = false;
  tell();
  mine.curve.replace((await get(`jobs/${id}/metrics`)).data);
  if (run !== mine) return;
  redraw();
  follow(mine).catch((error) => {
    if (error.name !== "AbortError") complain(error);
  });
}

/** Live events to the end of the job; a connection that breaks off is taken up again where it was. */
async function follow(mine) {
  const { signal } = mine.follower;
  let seen = null;
  let attempt = 0;
  let lost = false;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream", ...(seen ? { "Last-Event-ID": seen } : {}) };
      const answer = await call("GET", `jobs/${mine.job.id}/events`, { headers, signal });
      if (lost) say("The service is there again.");
      lost = false;
      for await (const { event, id, data } of eventsOf(answer)) {
        seen = id ?? seen;
        if (event === "status" && data.attempt !== attempt) {
          attempt = data.attempt;
          if (attempt > 1) await reread(mine); // a later attempt goes on from before what the last one had told
        }
        if (event === "setback") await reread(mine);
        take(mine, event, data);
      }
      mine.job = await get(`jobs/${mine.job.id}`, { signal });
      if (run !== mine) return;
      tell();
      shown = shown.map((job) => (job.id === mine.job.id ? mine.job : job));
      draw();
      if (!LIVE.has(mine.job.status) && mine.job.status !== "paused") return redraw();
    } catch (error) {
      if (signal.aborted || !(error instanceof TypeError)) throw error;
      lost = true;
      say("The service cannot be reached; trying again …");
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}

async function reread(mine) {
  mine.curve.replace((await get(`jobs/${mine.job.id}/metrics`)).data);
}

function take(mine, event, data) {
  if (run !== mine) return;
  const { progress } = mine.job;
  if (event === "progress") {
    mine.curve.take(data.step, data.train_loss, null);
    Object.assign(progress, data, { eta_seconds: data.eta_seconds ?? progress.eta_seconds });
  } else if (event === "evaluation") {
    mine.curve.take(data.step, null, data.val_loss);
    progress.val_loss = data.val_loss;
    if (data.best) mine.job.best = { step: data.step, val_loss: data.val_loss };
  } else if (event === "sample") {
    const samples = at("run-samples");
    samples.prepend(element("article", {}, element("small", {}, `Step ${count(data.step)}`), element("pre", {}, data.text)));
    while (samples.children.length > MOST_SAMPLES) samples.lastChild.remove();
  } else if (event === "checkpoint") {
    mine.job.model_id = data.model;
  } else if (event === "status") {
    Object.assign(mine.job, { status: data.status, attempt: data.attempt, place: null, worker: null });
    lookAgain(mine);
    if (data.error) mine.job.error = data.error;
  }
  tellSoon();
}

let looking = null;
/** For what no event tells: the worker, the place in the queue. Once, however many events come at the same time. */
function lookAgain(mine) {
  clearTimeout(looking);
  looking = setTimeout(async () => {
    const job = await get(`jobs/${mine.job.id}`).catch(() => null);
    if (!job || run !== mine || job.status !== mine.job.status) return;
    Object.assign(mine.job, { attempt: job.attempt, place: job.place, worker: job.worker });
    tellSoon();
  }, SOON);
}

let toldSoon = false;
function tellSoon() {
  if (toldSoon) return;
  toldSoon = true;
  requestAnimationFrame(() => {
    toldSoon = false;
    if (!run) return;
    tell();
    redraw();
  });
}

function tell() {
  const { job } = run;
  const { progress } = job;
  at("run-name").textContent = job.name;
  const asked = job.status === "running" && (job.cancel_requested || job.pause_requested);
  const wish = job.cancel_requested ? ", being cancelled" : ", being paused";
  at("run-status").textContent = job.status + (asked ? wish : job.place ? `, place ${job.place}` : "");
  at("run-status").className = `badge ${job.status}`;
  at("run-samples").toggleAttribute("data-over", !LIVE.has(job.status));
  at("run-error").hidden = !job.error;
  at("run-error").textContent = job.error ? `${job.error.code}: ${job.error.detail}` : "";
  at("run-progress").value = job.status === "succeeded" ? 1 : progress.fraction ?? 0;
  at("run-pause").hidden = !LIVE.has(job.status);
  at("run-resume").hidden = job.status !== "paused";
  at("run-cancel").hidden = !LIVE.has(job.status) && job.status !== "paused";
  at("run-delete").hidden = job.status === "running";
  for (const id of ["run-write", "run-download", "run-download-onnx"]) at(id).hidden = !job.model_id;
  const perCharacter = progress.val_loss ?? progress.train_loss;
  define(at("run-numbers"), [
    ["Step", progress.steps ? `${count(progress.step)} of ${count(progress.steps)}` : count(progress.step)],
    ["Training loss", loss(progress.train_loss)],
    ["Validation loss", loss(progress.val_loss)],
    ["Bits per character", perCharacter === null || perCharacter === undefined ? "–" : (perCharacter / Math.LN2).toFixed(3)],
    ["Best", job.best ? `${loss(job.best.val_loss)} at step ${count(job.best.step)}` : "–"],
    ["Characters a second", count(progress.characters_per_second)],
    ["Left", LIVE.has(job.status) ? duration(progress.eta_seconds) : "–"],
    ["Memory", bytes(progress.memory_bytes)],
    ["Network", network(job)],
    ["Text", job.corpus_name],
    ["Attempt", count(job.attempt)],
    ["Worker", job.worker ?? "–"],
  ]);
  const chosen = { ...job.model, ...job.training };
  define(at("run-settings"), Object.entries(chosen).map(([name, value]) => [name.replaceAll("_", " "), value ?? "–"]));
}

async function change(act) {
  const mine = run;
  mine.job = { ...(await ask(`jobs/${mine.job.id}/${act}`)), progress: mine.job.progress };
  say({ pause: "It pauses after the step under way.", resume: "It is queued again.", cancel: "It is cancelled." }[act]);
  if (run === mine) tell();
  await list(null);
}

/** The model's best checkpoint as a file. By a link the key could not be shown. */
async function download(format) {
  const { model_id } = run.job;
  const name = `${run.job.name}.${format}`;
  const file = await (await call("GET", `models/${model_id}/download?format=${format}`)).blob();
  const href = URL.createObjectURL(file);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
  say(`${name}, ${bytes(file.size)}.`);
}

async function drop() {
  const { job } = run;
  if (!confirm(`Delete the training ${job.name} and its history? Its model stays.`)) return;
  await remove(`jobs/${job.id}`);
  compared.delete(job.id);
  say(`${job.name} is deleted.`);
  location.hash = "#runs";
}
