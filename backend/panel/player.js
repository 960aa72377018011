// Which frame is shown, and playing: every frame in turn, later when it is not there yet.

export class Player {
  /**
   * `isReady(index)`: whether the frame can be shown. `onChange()`: another frame, or playing
   * has begun or ended.
   */
  constructor({ frame_count: count, fps, start_seconds: start }, { isReady, onChange }) {
    this.count = count;
    this.fps = fps > 0 ? fps : 25;
    this._start = start;
    this.frame = 0;
    this.speed = 1;
    this.isPlaying = false;
    this._isReady = isReady;
    this._onChange = onChange;
  }

  /** When the shown frame comes, on the video's own clock. */
  get seconds() {
    return this._start + this.frame / this.fps;
  }

  seek(index) {
    const frame = Math.max(0, Math.min(this.count - 1, Math.round(index)));
    if (frame === this.frame) return;
    this.frame = frame;
    this._due = undefined;
    this._onChange();
  }

  step(count) {
    this.pause();
    this.seek(this.frame + count);
  }

  play() {
    if (this.isPlaying) return;
    if (this.frame === this.count - 1) this.seek(0);
    this.isPlaying = true;
    this._due = undefined;
    this._onChange();
    requestAnimationFrame((now) => this._tick(now));
  }

  pause() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    this._onChange();
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  _tick(now) {
    if (!this.isPlaying) return;
    const each = 1000 / (this.fps * this.speed);
    this._due ??= now + each;
    // A screen that is slower than the video leaves frames out; one that waits for frames
    // does not hurry afterwards.
    let frame = this.frame;
    while (now >= this._due - 1 && frame + 1 < this.count && this._isReady(frame + 1)) {
      frame += 1;
      this._due += each;
    }
    if (now - this._due > each) this._due = now;
    if (frame !== this.frame) {
      this.frame = frame;
      if (frame === this.count - 1) this.isPlaying = false;
      this._onChange();
    }
    requestAnimationFrame((time) => this._tick(time));
  }
}
