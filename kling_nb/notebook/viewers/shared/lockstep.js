// Several videos in lock step: one clock, one position, one range.
//
// Invariants: while nothing plays, every clip stands at the same moment, near the middle of a frame, so that
// one step is one frame; while they play, none is a frame away from the one that leads, or all of them stop
// and gather; when one cannot go on, all wait for it; the newest wish always wins.
//
// The frames are those of the fastest clip: a slower one has no new picture at some steps, and no picture of
// any clip is skipped. A clip that is over holds its last frame.
//
// Shared by joining files (see frontend.py): it has no imports and no exports.

// Where in a frame a clip stands: off the middle, so that it is on no edge of a frame of another rate.
const WITHIN = 0.53;
// Seconds that are too short to correct, and in which a drift is made good: sooner by who is ahead, because
// waiting costs nothing.
const STILL = 0.002;
const WAIT = 0.05;
const CATCH_UP = 0.1;
// The shares of its speed at which a clip far ahead creeps, and at which all but the leader set out, until the
// leader has gone so many seconds: a clip with sound often moves, stops, and only then begins.
const CREEP = 0.1;
const SET_OUT = 0.5;
const UNDER_WAY = 0.03;
// Frames of drift at which all stop and gather; more is let pass while they get going, or a slow machine would
// never get past it.
const TOO_FAR = 1;
const FIRST_FAR = 2;
const FIRST_MS = 400;
const RATES = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2];

class LockStep {
  // `clips` are { video, fps, frames }, loaded; `changed()` is called after every change, and while playing.
  constructor(clips, changed = () => {}) {
    this.clips = clips.map(believable);
    this.changed = changed;
    this.fps = Math.max(...this.clips.map((clip) => clip.fps));
    this.rate = 1;
    this.loop = true;
    this.end = "longest";
    this.frame = 0;
    this.wanted = false; // whether it should play
    this.playing = false; // whether it does
    this.drift = 0; // seconds between the first and the last clip, now
    this.words = ""; // what stands in the way, if anything does
    this.turn = 0;
    this.whole();
    this.hidden = () => document.hidden && this.pause();
    document.addEventListener("visibilitychange", this.hidden);
    this.gather();
  }

  // -- what it is ----------------------------------------------------------
  length(clip) {
    return clip.frames / clip.fps;
  }

  // Frames in all.
  get frames() {
    const lengths = this.clips.map((clip) => this.length(clip));
    const seconds = this.end === "longest" ? Math.max(...lengths) : Math.min(...lengths);
    return Math.max(1, Math.round(seconds * this.fps));
  }

  time(frame) {
    return (frame + WITHIN) / this.fps;
  }

  // Where a clip stands at a time: no further than in its last frame.
  within(clip, seconds) {
    return Math.min(seconds, (clip.frames - 1 + WITHIN) / clip.fps);
  }

  // -- what people do --------------------------------------------------------
  toggle() {
    if (this.wanted) this.pause();
    else this.play();
  }

  play() {
    this.wanted = true;
    if (this.frame >= this.to || this.frame < this.from) this.frame = this.from;
    this.gather();
  }

  pause() {
    if (!this.wanted && !this.playing) return;
    this.note();
    this.wanted = false;
    this.gather();
  }

  // Goes to a frame; what plays goes on from there.
  go(frame) {
    this.frame = Math.min(Math.max(0, Math.round(frame)), this.frames - 1);
    this.gather();
  }

  step(frames) {
    this.note();
    this.wanted = false;
    this.go(this.frame + frames);
  }

  setRate(rate) {
    this.rate = Math.min(Math.max(rate, RATES[0]), RATES.at(-1));
    for (const { video } of this.clips) video.playbackRate = this.rate;
    this.changed();
  }

  setEnd(end) {
    this.end = end;
    this.whole();
    this.note();
    this.go(this.frame);
  }

  setLoop(loop) {
    this.loop = loop;
    this.changed();
  }

  // Frames of the loop, the last one included.
  setRange(from, to) {
    this.from = Math.min(Math.max(0, from), this.frames - 1);
    this.to = Math.min(Math.max(this.from, to), this.frames - 1);
    this.loop = true;
    this.changed();
  }

  whole() {
    this.from = 0;
    this.to = this.frames - 1;
  }

  // -- the clock ---------------------------------------------------------------
  // The clip that leads: one with sound, because a change of speed would be; else the longest.
  leader(clips) {
    const loud = clips.find(({ video }) => !video.muted);
    return loud ?? clips.reduce((a, b) => (this.length(b) > this.length(a) ? b : a));
  }

  // The clips that play. One in its last half frame is over: browsers say so only a while later.
  going() {
    return this.clips.filter((clip) => !clip.video.paused && !this.over(clip, clip.video.currentTime));
  }

  over(clip, seconds) {
    return clip.video.ended || seconds >= this.length(clip) - 0.5 / clip.fps;
  }

  // Keeps the position that was reached.
  note() {
    const going = this.playing ? this.going() : [];
    if (!going.length) return;
    const reached = Math.floor(this.leader(going).video.currentTime * this.fps);
    this.frame = Math.min(Math.max(0, reached), this.frames - 1);
  }

  // Brings every clip to the same moment; then they stand, or start together if that is wanted.
  async gather() {
    const turn = ++this.turn;
    this.playing = false;
    this.words = "";
    const at = this.time(this.frame);
    for (const { video } of this.clips) video.pause();
    this.drift = 0;
    this.changed();
    await Promise.all(this.clips.map((clip) => place(clip.video, this.within(clip, at))));
    if (turn !== this.turn) return;
    if (this.wanted) await this.start(turn, at);
  }

  async start(turn, at) {
    const going = this.clips.filter((clip) => at < this.length(clip) - 0.5 / clip.fps);
    const late = setTimeout(() => {
      if (turn !== this.turn) return;
      this.words = "Waiting for a clip";
      this.changed();
    }, 300);
    await Promise.all(going.map(({ video }) => ready(video)));
    clearTimeout(late);
    if (turn !== this.turn) return;
    this.words = "";
    this.playing = true;
    this.began = at;
    this.since = performance.now();
    const leader = this.leader(going);
    // A leader with sound takes longest to get going, nobody knows how long: the others set out slowly, so that
    // they are as little ahead when it comes late as they are behind when it comes at once.
    this.setOut = leader.video.muted ? 1 : SET_OUT;
    for (const { video } of going) {
      // Nobody hears the silent ones, and plain resampling follows a change of speed at once.
      video.preservesPitch = !video.muted;
      video.playbackRate = this.rate;
      if (video !== leader.video) this.speed(video, this.setOut);
      video.play().catch((error) => this.refused(error, turn, video));
    }
    this.tick(turn);
  }

  refused(error, turn, video) {
    if (turn !== this.turn || error.name === "AbortError") return;
    if (error.name === "NotAllowedError" && !video.muted) {
      // Browsers let nobody be startled by sound: silent, it may play.
      video.muted = true;
      this.gather();
      return;
    }
    this.pause();
    this.words = "The browser does not play a clip";
    this.changed();
  }

  // All clips are read in one turn of the page, which per-frame callbacks of several videos would not give.
  tick(turn) {
    if (turn !== this.turn) return;
    const going = this.going();
    const last = (this.to + 1) / this.fps;
    const leader = going.length ? this.leader(going) : null;
    // A turn of the page takes some 16 ms: the frame after the range must not be seen.
    if (!leader || leader.video.currentTime >= last - 0.012 * this.rate) {
      this.reached();
      return;
    }
    if (going.some(({ video }) => !video.seeking && video.readyState < 3 && video.currentTime > 0)) {
      this.note();
      this.gather(); // one has nothing to show: all wait for it
      return;
    }
    const times = going.map(({ video }) => video.currentTime);
    this.drift = Math.max(...times) - Math.min(...times);
    const first = performance.now() - this.since < FIRST_MS;
    if (this.drift * this.fps > (first ? FIRST_FAR : TOO_FAR)) {
      this.note();
      this.gather();
      return;
    }
    const now = leader.video.currentTime;
    this.mend(leader.video, now, going);
    this.frame = Math.min(Math.floor(now * this.fps), this.to);
    this.changed();
    requestAnimationFrame(() => this.tick(turn));
  }

  // A clip ahead of the leader goes slower for a moment, one behind goes faster.
  mend(leader, now, going) {
    const most = now - this.began < UNDER_WAY ? this.setOut : 1.5;
    for (const { video } of going) {
      if (video === leader) continue;
      const ahead = video.currentTime - now;
      const share = Math.abs(ahead) < STILL ? 1 : 1 - ahead / (ahead > 0 ? WAIT : CATCH_UP);
      this.speed(video, Math.min(Math.max(share, CREEP), most));
    }
  }

  speed(video, share) {
    const rate = Math.max(0.0625, Math.round(this.rate * share * 50) / 50);
    if (video.playbackRate !== rate) video.playbackRate = rate;
  }

  reached() {
    this.frame = this.loop ? this.from : this.to;
    this.wanted = this.loop;
    this.gather();
  }

  close() {
    this.turn += 1;
    document.removeEventListener("visibilitychange", this.hidden);
    for (const { video } of this.clips) {
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
  }
}

// Figures come from a receipt, which may be anybody's; the length is what the browser has measured.
function believable({ video, fps, frames }) {
  const rate = fps >= 1 && fps <= 240 ? fps : 24;
  const counted = frames / rate;
  const right = frames >= 1 && Math.abs(counted - video.duration) < 0.25;
  return { video, fps: rate, frames: right ? Math.round(frames) : Math.max(1, Math.round(video.duration * rate)) };
}

// Moves a paused video to a time and waits until that picture is there.
function place(video, seconds) {
  if (!video.seeking && Math.abs(video.currentTime - seconds) < 1e-4) return Promise.resolve();
  return new Promise((done) => {
    video.addEventListener("seeked", done, { once: true });
    video.currentTime = seconds;
  });
}

// Waits until a video can go on playing.
async function ready(video) {
  if (video.readyState >= 3) return;
  await new Promise((done) => {
    for (const event of ["canplay", "error"]) video.addEventListener(event, done, { once: true });
  });
}
