// Clips for live views: asks the kernel for the bytes of a clip and makes an address of them for <video>.
//
// Invariants: nothing is asked of the network, only of this notebook's own kernel; a clip is whole or it is
// not played; whatever comes from the kernel as words goes into the page as text, never as markup; what was
// made for the page is given back by `close`.
//
// Shared by joining files (see frontend.py): it has no imports and no exports.

const CLIP_PIECE = 1024 * 1024; // as in frontend.py
const CLIP_AHEAD = 4; // pieces asked for before the first of them has come

class Clips {
  // `model` is the widget's; `report(id, words)` is told how loading goes.
  constructor(model, report = () => {}) {
    this.model = model;
    this.report = report;
    this.loading = new Map();
    this.listener = (message, buffers) => this.take(message, buffers);
    model.on("msg:custom", this.listener);
  }

  // Gives the address of a clip once all of it is here; fails with an Error whose message is for people.
  get(id) {
    const known = this.loading.get(id);
    if (known) return known.whole;
    const clip = { pieces: new Map(), bytes: 0, size: null, next: 0, url: null };
    clip.whole = new Promise((done, fail) => Object.assign(clip, { done, fail }));
    this.loading.set(id, clip);
    clip.late = setTimeout(
      () => this.report(id, "Waiting for the kernel: it is busy with another cell, or has ended."),
      4000,
    );
    this.ask(id, clip, 0);
    return clip.whole;
  }

  ask(id, clip, at) {
    clip.next = at + CLIP_PIECE;
    this.model.send({ kind: "clip", id, at });
  }

  take(message, buffers) {
    const clip = message?.kind === "clip" ? this.loading.get(message.id) : undefined;
    if (!clip || clip.url || clip.over) return;
    clearTimeout(clip.late);
    if (message.why !== undefined) {
      clip.over = true;
      clip.fail(new Error(message.why));
      return;
    }
    if (clip.pieces.has(message.at)) return; // another view of the same widget asked as well
    const piece = buffers[0];
    clip.pieces.set(message.at, piece);
    clip.bytes += piece.byteLength;
    clip.size = message.size;
    if (clip.bytes < clip.size) {
      this.report(message.id, `Loading, ${Math.floor((100 * clip.bytes) / clip.size)} %`);
      const asked = () => clip.next / CLIP_PIECE - clip.pieces.size;
      while (clip.next < clip.size && asked() < CLIP_AHEAD) this.ask(message.id, clip, clip.next);
      return;
    }
    const order = [...clip.pieces.keys()].sort((a, b) => a - b);
    const blob = new Blob(order.map((at) => clip.pieces.get(at)), { type: message.type });
    clip.pieces.clear();
    clip.url = URL.createObjectURL(blob);
    this.report(message.id, "");
    clip.done(clip.url);
  }

  // Forgets one clip, so that its memory is free and it can be asked for again.
  forget(id) {
    const clip = this.loading.get(id);
    if (!clip) return;
    clearTimeout(clip.late);
    if (clip.url) URL.revokeObjectURL(clip.url);
    this.loading.delete(id);
  }

  close() {
    this.model.off("msg:custom", this.listener);
    for (const id of [...this.loading.keys()]) this.forget(id);
  }
}
