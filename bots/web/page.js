// The page's own script, run once by Gradio when the transcript is mounted.
// Given by Gradio: `element` (the transcript's root), `server` (the Python functions of `page.py`).
// All HTML arrives ready and escaped from `render.py`; nothing here builds markup from text.

const byId = (id) => document.getElementById(id);
const inside = (id) => byId(id)?.querySelector(".html-container > div") ?? byId(id);
const transcript = () => byId("transcript");
const parley = { thread: decodeURIComponent(location.hash.slice(1)), name: "", named };
window.parley = parley;

// ---- What the server says -------------------------------------------------------------------------

const nearBottom = () => {
  const box = byId("scroll");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 160;
};
const toBottom = () => { const box = byId("scroll"); box.scrollTop = box.scrollHeight; };

function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  for (const time of template.content.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    time.textContent = at.toLocaleString([], today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
  }
  return template.content;
}

function markThread() {
  for (const link of document.querySelectorAll("#threads a")) {
    const current = link.dataset.thread === parley.thread;
    if (current) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
  }
}

let held = null; // a list of documents that waits, see `sure`
const on = {
  thread({ ref, html }) {
    parley.thread = ref;
    if (location.hash.slice(1) !== ref) history.replaceState(null, "", `#${ref}`);
    transcript().replaceChildren(fragment(html));
    markThread();
    readMine();
    toBottom();
  },
  entry({ key, html, replaces }) {
    const follow = nearBottom();
    if (replaces) byId(`entry-${replaces}`)?.remove();
    const old = byId(`entry-${key}`);
    const fresh = fragment(html);
    for (const open of old?.querySelectorAll("details[open]") ?? []) fresh.getElementById(open.id)?.setAttribute("open", "");
    transcript().querySelector(".empty")?.remove();
    if (old) old.replaceWith(fresh); else transcript().append(fresh);
    showMine();
    if (follow || !old) toBottom();
  },
  delta({ key, text }) {
    const entry = byId(`entry-${key}`);
    if (!entry) return;
    const follow = nearBottom();
    entry.querySelector(".answer .note")?.setAttribute("hidden", "");
    entry.querySelector(".live")?.append(text);
    if (follow) toBottom();
  },
  consent({ workspace }) { mine.workspace = workspace; changes += 1; showMine(); },
  recovered() { if (transcript().querySelector(":scope > .problem")) open(parley.thread); },
  threads({ html }) { inside("threads").replaceChildren(fragment(html)); markThread(); },
  documents(event) {
    const box = inside("documents");
    held = box.querySelector("[data-sure]") ? event : null;
    if (held) return; // "Really?" stands there; the list follows when that is answered
    const focused = document.activeElement?.closest?.("#documents [data-action]");
    const row = focused?.closest("[data-document]")?.dataset.document;
    box.replaceChildren(fragment(event.html));
    if (row) box.querySelector(`[data-document="${row}"] [data-action="${focused.dataset.action}"]`)?.focus();
  },
};

let socket;
let wait = 250;
function connect() {
  socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/live`);
  socket.onopen = () => {
    wait = 250;
    byId("offline").hidden = true;
    document.documentElement.dataset.live = "true";
    open(parley.thread);
  };
  socket.onmessage = ({ data }) => { for (const event of JSON.parse(data)) on[event.kind](event); };
  socket.onclose = async () => {
    byId("offline").hidden = false;
    delete document.documentElement.dataset.live;
    const refused = wait > 1000 && (await fetch("healthz").catch(() => null))?.ok;
    if (refused) location.reload(); // the server is there: this browser's session has ended
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 4000);
  };
}
function open(ref) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ open: ref || null }));
}
window.addEventListener("hashchange", () => open(decodeURIComponent(location.hash.slice(1))));

// ---- What the person does -------------------------------------------------------------------------

// True when the button was pressed twice; in between it asks.
function sure(button) {
  const answered = () => {
    if (!button.dataset.sure) return;
    button.textContent = button.dataset.sure;
    delete button.dataset.sure;
    if (held) on.documents(held);
  };
  if (button.dataset.sure) {
    answered();
    return true;
  }
  button.dataset.sure = button.textContent;
  button.textContent = "Really?";
  setTimeout(answered, 4000);
  return false;
}

const say = (text) => { byId("notice").textContent = text; byId("notice").hidden = !text; };
const refused = (error) => say(error instanceof Refused ? error.message : "That did not reach Parley. Try again in a moment.");

// ---- Ratings and consent, by the name beside the question ------------------------------------------

let mine = { votes: {}, person: false, workspace: false };
let changes = 0; // of `mine`, which an answer that was asked for before does not know
const drafts = new Map(); // better answers that nobody has saved yet, by the id of the answer
const writing = new Set(); // ids of the answers whose better answer is open

function showMine() {
  for (const rating of transcript().querySelectorAll(".rating")) {
    const { answer } = rating.dataset;
    for (const button of rating.querySelectorAll("[data-value]")) {
      button.setAttribute("aria-pressed", mine.votes[answer] === Number(button.dataset.value));
    }
    const text = rating.querySelector("textarea");
    rating.querySelector("[aria-expanded]").setAttribute("aria-expanded", writing.has(answer));
    rating.querySelector(".better").hidden = !writing.has(answer);
    if (text.value !== (drafts.get(answer) ?? "")) text.value = drafts.get(answer) ?? "";
  }
  for (const box of document.querySelectorAll("[data-consent]")) box.checked = mine[box.dataset.consent];
}
async function readMine() {
  const before = changes;
  const { name } = parley;
  showMine();
  const read = await post("mine", {}).catch(() => null); // the page says itself when Parley is away
  if (name !== parley.name) return; // it is read for the other name
  if (before !== changes) { await readMine(); return; }
  if (read) mine = read;
  showMine();
}
let naming;
function named(name) {
  if (name === parley.name) return;
  parley.name = name;
  mine = { ...mine, votes: {}, person: false };
  clearTimeout(naming);
  naming = setTimeout(readMine, 300);
}

class Refused extends Error {}
async function post(path, body) {
  const response = await fetch(`feedback/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ name: parley.name, ...body }),
  });
  const answer = await response.json();
  if (response.ok) return answer;
  if (response.status === 400) document.querySelector("#composer input, #composer textarea").focus();
  throw typeof answer.detail === "string" ? new Refused(answer.detail) : new Error("refused");
}

// One request about an answer at a time: who clicks twice at once clicks once.
async function rate(rating, path, body) {
  if (rating.ariaBusy) return null;
  const { name } = parley;
  rating.ariaBusy = "true";
  try {
    const done = await post(`answers/${rating.dataset.answer}/${path}`, body);
    rating.querySelector(".said").textContent = done.said;
    changes += 1;
    return name === parley.name ? done : null;
  } finally { rating.ariaBusy = null; }
}
async function vote(rating, button) {
  const { answer } = rating.dataset;
  const pressed = button.getAttribute("aria-pressed") === "true";
  const done = await rate(rating, "vote", { value: pressed ? null : Number(button.dataset.value) });
  if (!done) return;
  mine.votes[answer] = done.value;
  if (done.value === -1) writing.add(answer); else if (!drafts.get(answer)) writing.delete(answer);
  showMine();
  rating.scrollIntoView({ block: "nearest" });
}
async function sendBetter(rating) {
  if (await rate(rating, "better", { text: rating.querySelector("textarea").value })) forgetBetter(rating);
}
function forgetBetter(rating) {
  drafts.delete(rating.dataset.answer);
  writeBetter(rating, false);
}
function writeBetter(rating, wanted) {
  const { answer } = rating.dataset;
  if (wanted) writing.add(answer); else writing.delete(answer);
  showMine();
  rating.querySelector(wanted ? "textarea" : "[aria-expanded]").focus();
  rating.scrollIntoView({ block: "nearest" });
}

document.addEventListener("input", ({ target }) => {
  const answer = target.closest(".better")?.closest(".rating").dataset.answer;
  if (answer) drafts.set(answer, target.value);
});
document.addEventListener("change", async ({ target }) => {
  const whose = target.dataset.consent;
  if (!whose) return;
  if (target.ariaBusy) { showMine(); return; }
  const given = target.checked;
  const { name } = parley;
  say("");
  mine[whose] = given; // whatever else is shown meanwhile
  target.ariaBusy = "true";
  changes += 1;
  try {
    const { person, workspace } = await post(`consent/${whose}`, { given });
    if (name === parley.name) mine = { ...mine, person, workspace }; // what was read meanwhile is older
  } catch (error) {
    if (name === parley.name) mine[whose] = !given;
    refused(error);
  }
  target.ariaBusy = null;
  changes += 1;
  showMine();
});

const about = (entry) => [parley.thread, entry.dataset.key, parley.name];
const act = {
  stop: (entry) => server.stop(about(entry)),
  retry: (entry) => server.retry(about(entry)),
  again: (entry) => server.again(about(entry)),
  remove: (entry, button) => {
    const { document: id } = button.closest("[data-document]").dataset;
    return sure(button) && server.remove(id);
  },
  replace: (entry, button) => choose(button.closest("[data-document]").dataset.name),
  dismiss: (entry, button) => server.dismiss(button.closest("[data-name]").dataset.name),
  vote: (entry, button) => vote(button.closest(".rating"), button),
  better: (entry, button) => {
    const rating = button.closest(".rating");
    writeBetter(rating, !writing.has(rating.dataset.answer));
  },
  forgetBetter: (entry, button) => forgetBetter(button.closest(".rating")),
  sendBetter: (entry, button) => sendBetter(button.closest(".rating")),
  newThread: async () => open(await server.new_thread(null)),
  side: (entry, button) => {
    button.setAttribute("aria-expanded", byId("parley").classList.toggle("side-open"));
  },
};

document.addEventListener("click", async (event) => {
  const cite = event.target.closest("[data-source]");
  const link = event.target.closest("#threads a");
  const button = event.target.closest("[data-action]");
  if (cite) {
    const source = byId(cite.dataset.source);
    source.open = true;
    source.scrollIntoView({ block: "nearest" });
    source.querySelector("summary").focus();
  } else if (link) {
    event.preventDefault();
    open(link.dataset.thread);
    byId("parley").classList.remove("side-open");
  } else if (button) {
    try {
      say("");
      await act[button.dataset.action](button.closest(".entry"), button);
    } catch (error) { refused(error); }
  }
});

// ---- Files: dropped anywhere, over the limit, or replacing another --------------------------------

const fileInput = () => document.querySelector("input[type=file]");
let replacing = null;

function give(files) {
  const chosen = new DataTransfer();
  for (const file of files) chosen.items.add(file);
  const input = fileInput();
  input.files = chosen.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}
function choose(name) {
  replacing = name;
  fileInput().click();
}
const suffix = (name) => name.slice(name.lastIndexOf(".") + 1).toLowerCase();
const limit = props.limit_bytes;

// Before Gradio sees the choice: leave out what is too large (Gradio would refuse the others with it), and
// give a replacement the name of the document that it replaces.
document.addEventListener("change", (event) => {
  if (event.target.type !== "file") return;
  let files = [...event.target.files];
  const problems = files.filter((file) => file.size > limit)
    .map((file) => `${file.name} is larger than ${Math.round(limit / 1048576)} MB.`);
  files = files.filter((file) => file.size <= limit);
  if (replacing && files.length) {
    if (suffix(files[0].name) !== suffix(replacing)) {
      problems.push(`${replacing} can only be replaced by another .${suffix(replacing)} file.`);
      files = [];
    } else files = [new File([files[0]], replacing, { type: files[0].type })];
  }
  replacing = null;
  say(problems.join(" "));
  const kept = new DataTransfer();
  for (const file of files) kept.items.add(file);
  event.target.files = kept.files;
  if (!files.length) event.stopImmediatePropagation();
}, true);

let depth = 0;
const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const hover = (change) => { depth = Math.max(0, depth + change); byId("parley").classList.toggle("dropping", depth > 0); };
window.addEventListener("dragenter", (event) => { if (carriesFiles(event)) { event.preventDefault(); hover(1); } });
window.addEventListener("dragleave", (event) => { if (carriesFiles(event)) hover(-1); });
window.addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
window.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  event.stopPropagation();
  depth = 0;
  hover(0);
  give(event.dataTransfer.files);
}, true);

// Questions in any script: Gradio fixes the direction, the browser knows better.
for (const box of document.querySelectorAll("#composer textarea")) box.dir = "auto";
connect();
