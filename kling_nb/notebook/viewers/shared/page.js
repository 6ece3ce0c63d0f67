// Small builders for the pages of live views.
//
// Invariants: words always go in as text, never as markup, so that a prompt can be anything; every control
// has a name that is read aloud.
//
// Shared by joining files (see frontend.py): it has no imports and no exports.

// Makes an element. `text` is its words, `on` its listeners, `class` its classes; everything else is an
// attribute, left out where it is null, undefined or false.
function make(tag, { text, on, class: classes, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  if (text !== undefined && text !== null) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const [event, act] of Object.entries(on ?? {})) node.addEventListener(event, act);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// A button with a word on it and a longer name for who cannot see it; the name begins with the word.
function button(text, act, { name = text, key = null, ...more } = {}) {
  return make("button", {
    type: "button",
    text,
    title: key ? `${name} (key: ${key})` : name,
    "aria-label": name,
    "aria-keyshortcuts": key,
    on: { click: act },
    ...more,
  });
}

// A drop-down with its label. `choices` are pairs of value and words.
function choice(label, choices, chosen, act) {
  const select = make("select", { on: { change: () => act(select.value) } });
  for (const [value, words] of choices) {
    select.append(make("option", { value, text: words, selected: value === chosen }));
  }
  return make("label", {}, make("span", { text: label }), select);
}

// Seconds for people: 3.25 s.
function secondsText(seconds) {
  return `${seconds.toFixed(2)} s`;
}

// Puts a silent <video> of a clip into a box, and gives it once its first picture is there; fails with words
// for people where this browser cannot play it.
function openVideo(url, clip, box) {
  const video = make("video", { preload: "auto", playsinline: true, tabindex: -1, "aria-hidden": "true" });
  video.muted = true;
  video.disablePictureInPicture = true;
  return new Promise((done, fail) => {
    video.addEventListener("loadeddata", () => done(video), { once: true });
    video.addEventListener(
      "error",
      () => {
        video.remove();
        fail(new Error(`This browser cannot play the clip (${clip.codec || "unknown codec"}).`));
      },
      { once: true },
    );
    video.src = url;
    box.prepend(video);
  });
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Keeps keys typed at an element from the notebook around it, where X cuts the cell. Its commands look from the
// focus outwards and stop only at what carries this, so the element itself needs it, not just its frame. While
// Ctrl or Cmd is down it carries nothing: Ctrl+S has to save the notebook, and no view uses such keys.
const KEEP = "data-lm-suppress-shortcuts";
const follow = ({ currentTarget, ctrlKey, metaKey }) => {
  if (ctrlKey || metaKey) currentTarget.removeAttribute(KEEP);
  else currentTarget.setAttribute(KEEP, "true");
};

function keepKeys(node) {
  node.setAttribute(KEEP, "true");
  // The same listener again is the same one.
  node.addEventListener("keydown", follow);
  node.addEventListener("keyup", follow);
}

// The same for all that is in a view now or later.
function keepAllKeys(root) {
  root.addEventListener("focusin", (event) => keepKeys(event.target));
}

// A long prompt scrolls, so the keyboard must be able to reach it.
function promptBox(text, label) {
  return make("div", { class: "kling-prompt", dir: "auto", tabindex: 0, role: "group", "aria-label": label, text });
}
