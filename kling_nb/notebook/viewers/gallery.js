// A contact sheet: tiles with stills that come when they are seen, and clips that play under the pointer.
//
// Invariants: no still is asked for before its tile is near the window, and no clip before it is under the
// pointer or the focus; one clip plays at a time, without sound; who prefers less motion starts it with a
// key; the clips kept in the page are bounded, and given back at the end.
//
// Joined behind page.js and clips.js (see frontend.py).

const KEPT_CLIPS = 8;
const KEPT_BYTES = 96 * 1024 * 1024;
// Tiles that are put in at once: JupyterLab takes 0.1 ms to style each, and as long for the head of its row.
const PIECE = 100;
const LINGER_MS = 150; // a pointer that only passes by asks for nothing

const number = (value) => (value === null ? -1 : value);
const SORTS = {
  given: ["As given", (a, b) => a.place - b.place],
  newest: ["Newest first", (a, b) => b.words.created.localeCompare(a.words.created)],
  oldest: ["Oldest first", (a, b) => a.words.created.localeCompare(b.words.created)],
  highest: ["Highest cost first", (a, b) => number(b.words.micros) - number(a.words.micros)],
  longest: ["Longest first", (a, b) => b.words.seconds - a.words.seconds],
  name: ["By name", (a, b) => a.title.localeCompare(b.title)],
};

class Tile {
  constructor(words, place, sheet) {
    this.sheet = sheet;
    this.place = place;
    this.lines = ["", ""];
    this.node = make("div", { class: "kling-tile", role: "option", tabindex: -1, "aria-selected": "false" });
    this.node.klingTile = this;
    this.update(words);
  }

  // What is in it is made when it comes near the window: of a thousand tiles few are ever looked at.
  fill() {
    if (this.box) return;
    this.box = make("div", { class: "kling-box" });
    this.message = make("div", { class: "kling-message" });
    this.text = make("div", { class: "kling-words", dir: "auto" });
    const mark = make("span", { class: "kling-mark", text: "Selected" });
    this.caption = make("div", { class: "kling-caption" }, mark, make("span"));
    this.node.append(this.box, this.text, this.caption);
    this.draw();
  }

  update(words) {
    this.words = words;
    this.title = words.name || words.id;
    this.facts = [...words.asked, words.state, words.cost, ...words.tags];
    this.found = [words.id, words.name, words.prompt, ...this.facts].join(" ").toLowerCase();
    if (this.box) this.draw();
  }

  draw() {
    if (!this.image && !this.video) {
      const why = this.words.plays ? "" : this.words.state;
      this.box.replaceChildren(make("span", { class: "kling-why", text: why }), this.message);
    }
    [this.text.textContent, this.caption.lastChild.textContent] = this.lines;
  }

  // What differs comes first: the prompt, then the facts; what all have in common is said once above.
  tell(alike, samePrompt) {
    const { grid } = this.sheet;
    const ids = this.words.name ? [this.words.name, this.words.id] : [this.words.id];
    const differing = this.facts.filter((fact) => !alike.has(fact));
    let title = samePrompt ? differing.join(", ") || this.title : this.words.prompt;
    let rest = samePrompt ? ids : [...differing, ...ids];
    let names = [title, ...rest];
    if (grid && this.sheet.sort === "given") {
      const seen = [this.words.state, this.words.cost, this.title];
      title = "";
      rest = seen.filter((fact) => !alike.has(fact));
      names = [...grid.rows[this.row], grid.heads[this.column], ...seen];
    }
    this.node.setAttribute("aria-label", names.filter(Boolean).join(", "));
    this.lines = [title, rest.join("\u00a0\u00b7 ")];
    if (this.box) this.draw();
  }

  still(uri) {
    if (this.image) return;
    this.fill();
    if (!uri) {
      this.box.firstChild.textContent = "no still";
      return;
    }
    this.image = make("img", { src: uri, alt: "", decoding: "async" });
    this.box.replaceChildren(this.image, this.message);
  }

  say(words) {
    this.fill();
    this.message.textContent = words;
  }

  select(on) {
    this.selected = on;
    this.node.setAttribute("aria-selected", String(on));
    this.node.classList.toggle("kling-chosen", on);
  }

  play(url) {
    this.fill();
    this.video = make("video", { src: url, muted: true, loop: true, playsinline: true, tabindex: -1 });
    this.video.muted = true;
    this.box.append(this.video);
    this.video.play().catch((error) => error.name === "AbortError" || this.say("The browser does not play it"));
  }

  stop() {
    if (!this.video) return;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    this.video.remove();
    this.video = null;
  }
}

class Gallery {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.still = window.matchMedia("(prefers-reduced-motion: reduce)");
    this.turn = 0;
    this.me = Math.random().toString(36).slice(2); // tells this page from others on the same notebook
    this.kept = new Map();
    const { tiles, note, grid } = model.get("state");
    this.grid = grid ?? null;
    this.heads = new Map();
    this.there = PIECE;
    this.tiles = tiles.map((words, place) => new Tile(words, place, this));
    for (const tile of this.grid ? this.tiles : []) [tile.row, tile.column] = this.grid.at[tile.words.id];
    this.byId = new Map(this.tiles.map((tile) => [tile.words.id, tile]));
    this.clips = new Clips(model, (id, words) => this.byId.get(id)?.say(words));
    this.build(note);
    this.listener = (message) => this.hear(message);
    model.on("msg:custom", this.listener);
    model.send({ kind: "hello" });
    this.watch();
  }

  build(note) {
    const { root } = this;
    root.className += " kling-live kling-gallery";
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", `Gallery of ${this.tiles.length} runs`);
    this.filter = make("input", { type: "search", on: { input: () => this.arrange() } });
    const find = make("label", {}, make("span", { text: "Filter" }), this.filter);
    const sorts = Object.entries(SORTS).map(([value, [words]]) => [value, words]);
    if (this.grid) sorts[0][1] = "As a grid";
    this.sort = "given";
    const sort = choice("Sort", sorts, "given", (value) => {
      this.sort = value;
      this.arrange();
    });
    const all = button("Select shown", () => this.choose(this.shown(), true));
    const none = button("Clear", () => this.choose(this.tiles, false), { name: "Clear the selection" });
    const close = button("Close", () => this.dismiss(), { name: "Close the live gallery" });
    const head = make("div", { class: "kling-head" }, find, sort, all, none, close);
    this.status = make("div", { class: "kling-status", role: "status" });
    const how = this.still.matches ? "Enter plays a clip" : "A clip plays under the pointer or the focus, Enter stops it";
    this.hint = make("div", { class: "kling-hint", text: `Arrows move, Space selects. ${how}. ${note}` });
    this.list = make(
      "div",
      { class: "kling-tiles", role: "listbox", "aria-multiselectable": "true", "aria-label": "Runs" },
    );
    this.common = make("div", { class: "kling-common", dir: "auto" });
    root.replaceChildren(head, this.status, this.common, this.list, this.hint);
    keepAllKeys(root);
    const on = (event, act) => this.list.addEventListener(event, act);
    on("keydown", (event) => this.key(event));
    on("click", (event) => this.clicked(event));
    on("pointermove", (event) => this.pointed(event));
    on("pointerleave", () => this.byPointer && this.want(null));
    on("focusin", (event) => this.focused(tileOf(event.target)));
    on("focusout", () => this.want(null));
    this.arrange();
    this.grow();
  }

  // Puts in what is not there yet, a piece a frame; what is there stays as it is.
  grow() {
    if (this.there >= this.tiles.length) return;
    this.growing = requestAnimationFrame(() => {
      this.there += PIECE;
      this.put();
      this.count();
      this.grow();
    });
  }

  // -- what is seen ------------------------------------------------------------
  watch() {
    const ask = (entries) => {
      const seen = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target.klingTile);
      const ids = seen.filter((tile) => tile.words.plays && !tile.image).map((tile) => tile.words.id);
      for (const tile of seen) tile.fill();
      for (const tile of seen) if (tile.words.plays) this.observer.unobserve(tile.node);
      if (ids.length) this.model.send({ kind: "stills", ids });
    };
    this.observer = new IntersectionObserver(ask, { root: this.list, rootMargin: "200px" });
    for (const tile of this.tiles) this.observer.observe(tile.node);
  }

  hear(message) {
    if (message.kind === "still") this.byId.get(message.id)?.still(message.uri);
    if (message.kind === "selected" && message.by !== this.me) {
      const ids = new Set(message.ids);
      for (const tile of this.tiles) tile.select(ids.has(tile.words.id));
      this.count();
    }
    if (message.kind === "tile") {
      const tile = this.byId.get(message.tile.id);
      tile?.update(message.tile);
      if (tile?.words.plays) {
        // What is watched already tells nothing anew.
        this.observer.unobserve(tile.node);
        this.observer.observe(tile.node);
      }
      this.arrange();
    }
  }

  shown() {
    return [...this.list.children].map((node) => node.klingTile).filter((tile) => tile && !tile.node.hidden);
  }

  arrange() {
    this.compare();
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const tile of this.tiles) tile.node.hidden = !words.every((word) => tile.found.includes(word));
    this.order = [...this.tiles].sort(SORTS[this.sort][1]);
    this.put();
    if (!this.current || this.current.node.hidden) this.here(this.shown()[0] ?? null);
    this.count();
  }

  put() {
    let next = this.list.firstElementChild;
    for (const { node } of this.order.slice(0, this.there)) {
      // Moving what stands right already would stop what plays, and lose the focus.
      if (node === next) next = next.nextElementSibling;
      else this.list.insertBefore(node, next);
    }
    this.place();
  }

  // In a grid each tile stands below the head of its column and beside that of its row.
  place() {
    if (!this.grid) return;
    const on = this.sort === "given";
    const { heads, rows } = this.grid;
    const seen = on ? [...new Set(this.shown().map((tile) => tile.row))] : [];
    seen.sort((one, other) => one - other);
    if (this.placed === seen.join()) return;
    this.placed = seen.join();
    const lines = new Map(seen.map((row, at) => [row, at + 2]));
    for (const tile of this.tiles) setArea(tile.node, on ? `${lines.get(tile.row) ?? 1} / ${tile.column + 2}` : "");
    const wanted = new Map();
    const head = (key, name, area, words) => {
      const attributes = { class: name, "aria-hidden": "true", dir: "auto" };
      const inside = () => words.filter(Boolean).map((text) => make("div", { text }));
      const node = this.heads.get(key) ?? make("div", attributes, ...inside());
      setArea(node, area);
      wanted.set(key, node);
      if (!node.parentNode) this.list.append(node);
    };
    if (on) heads.forEach((words, at) => head(`above ${at}`, "kling-above", `1 / ${at + 2}`, [words]));
    for (const row of seen) head(row, "kling-beside", `${lines.get(row)} / 1`, rows[row]);
    for (const [key, node] of this.heads) if (!wanted.has(key)) node.remove();
    this.heads = wanted;
    this.list.classList.toggle("kling-grid", on);
    const columns = `minmax(96px, 180px) repeat(${heads.length}, minmax(128px, 200px))`;
    this.list.style.gridTemplateColumns = on ? columns : "";
  }

  // Says of each tile what tells it from the others.
  compare() {
    const [first, ...others] = this.tiles;
    const shared = first && others.length ? first.facts.filter((fact) => others.every((t) => t.facts.includes(fact))) : [];
    const samePrompt = others.length > 0 && others.every((tile) => tile.words.prompt === first.words.prompt);
    const alike = new Set(shared);
    for (const tile of this.tiles) tile.tell(alike, samePrompt);
    setText(this.common, [...(samePrompt ? [first.words.prompt] : []), ...shared].join("\u00a0\u00b7 "));
  }

  count() {
    const chosen = this.tiles.filter((tile) => tile.selected).length;
    this.status.textContent = `${this.shown().length} of ${this.tiles.length} runs shown, ${chosen} selected`;
  }

  // -- what people do ------------------------------------------------------------
  here(tile) {
    this.current?.node.setAttribute("tabindex", "-1");
    this.current = tile;
    tile?.node.setAttribute("tabindex", "0");
  }

  // When the sheet scrolls under a pointer that stands still, nobody has pointed at anything.
  pointed({ clientX, clientY, target }) {
    if (this.pointer?.clientX === clientX && this.pointer?.clientY === clientY) return;
    this.pointer = { clientX, clientY };
    this.want(tileOf(target));
    this.byPointer = true;
  }

  focused(tile) {
    if (!tile) return;
    this.here(tile);
    this.want(tile);
    this.byPointer = false;
  }

  choose(tiles, on) {
    for (const tile of tiles) tile.select(on);
    this.count();
    const ids = this.tiles.filter((tile) => tile.selected).map((tile) => tile.words.id);
    this.model.send({ kind: "select", ids, by: this.me });
  }

  clicked(event) {
    const tile = tileOf(event.target);
    if (!tile) return;
    tile.node.focus({ preventScroll: true });
    this.choose([tile], !tile.selected);
  }

  key(event) {
    const tile = tileOf(event.target);
    if (!tile || event.altKey || event.metaKey) return;
    const shown = this.shown();
    const at = shown.indexOf(tile);
    const top = tile.node.offsetTop;
    const columns = Math.max(1, shown.filter((other) => other.node.offsetTop === shown[0].node.offsetTop).length);
    // In a grid up and down stay in the column.
    const column = this.grid && this.sort === "given" ? shown.filter((other) => other.column === tile.column) : [];
    const next = (by) => {
      const there = column[column.indexOf(tile) + by];
      if (column.length) return there ? shown.indexOf(there) : at;
      return at + by * columns;
    };
    const moves = {
      ArrowRight: at + 1,
      ArrowLeft: at - 1,
      ArrowDown: next(1),
      ArrowUp: next(-1),
      Home: 0,
      End: shown.length - 1,
    };
    if (event.key in moves) {
      shown[Math.min(Math.max(0, moves[event.key]), shown.length - 1)].node.focus();
    } else if (event.key === " ") {
      this.choose([tile], !tile.selected);
    } else if (event.key === "Enter") {
      if (this.playing === tile) this.want(null);
      else this.want(tile, true);
    } else if (event.key === "a" && event.ctrlKey) {
      this.choose(shown, true);
    } else {
      return;
    }
    event.preventDefault();
  }

  // -- what plays ----------------------------------------------------------------
  // Plays the clip of a tile, or none. `asked` says that somebody pressed a key for it.
  async want(tile, asked = false) {
    if (tile === this.wanted && !asked) return;
    this.halt();
    if (!tile || !tile.words.plays || (this.still.matches && !asked)) return;
    const turn = this.turn;
    this.wanted = tile;
    await new Promise((done) => setTimeout(done, asked ? 0 : LINGER_MS));
    if (turn !== this.turn) return;
    const { id } = tile.words;
    try {
      const url = await this.clips.get(id);
      if (turn !== this.turn) return;
      this.keep(id);
      this.playing = tile;
      tile.play(url);
    } catch (error) {
      if (turn === this.turn) tile.say(error.message);
    }
  }

  halt() {
    this.turn += 1;
    const { wanted } = this;
    this.wanted = this.playing = null;
    if (!wanted) return;
    wanted.stop();
    wanted.say("");
    // What is still on its way is not worth waiting for.
    if (!this.kept.has(wanted.words.id)) this.clips.forget(wanted.words.id);
  }

  keep(id) {
    const size = this.clips.loading.get(id)?.size ?? 0;
    this.kept.delete(id);
    this.kept.set(id, size);
    let bytes = [...this.kept.values()].reduce((sum, each) => sum + each, 0);
    for (const [oldest, its] of this.kept) {
      if (oldest === id || (this.kept.size <= KEPT_CLIPS && bytes <= KEPT_BYTES)) break;
      this.kept.delete(oldest);
      this.clips.forget(oldest);
      bytes -= its;
    }
  }

  dismiss() {
    this.halt();
    this.model.send({ kind: "close" });
  }

  close() {
    this.halt();
    cancelAnimationFrame(this.growing);
    this.observer.disconnect();
    this.model.off("msg:custom", this.listener);
    this.clips.close();
  }
}

// A browser styles anew whatever is set, also to what it was.
function setArea(node, area) {
  if (node.klingArea !== area) node.style.gridArea = node.klingArea = area;
}

function tileOf(node) {
  return node.closest?.(".kling-tile")?.klingTile ?? null;
}

// The saved sheet stands in the output above: while the live one is there, nobody needs both.
function coverSaved(el) {
  const saved = el.closest(".jp-OutputArea-child")?.previousElementSibling;
  if (!saved) return () => {};
  saved.style.display = "none";
  return () => {
    saved.style.display = "";
  };
}

export default {
  render({ model, el }) {
    const gallery = new Gallery(model, el);
    let uncover = () => {};
    const late = requestAnimationFrame(() => {
      uncover = coverSaved(el);
    });
    return () => {
      cancelAnimationFrame(late);
      uncover();
      gallery.close();
    };
  },
};
