// One file in a conversation: asked about, under way, done or failed.

import { type Announced, type Channel, DeclinedError, receiveFile, sendFile } from "../peerlink";
import { clock, el, size, theirs, visible } from "./dom";
import { type Kept, place } from "./files";

/** FileItem is shown in the log. */
export class FileItem {
  readonly view: HTMLElement;
  /** stop ends the transfer. */
  readonly stop = new AbortController();
  readonly #bar = el("progress", { max: 1, value: 0 });
  readonly #state = el("p", { class: "hint", role: "status" });
  readonly #buttons = el("div", { class: "row" });
  #began = 0;
  #drawn = 0;

  constructor(
    whose: "mine" | "yours",
    readonly name: string,
    private readonly bytes: number,
  ) {
    this.#bar.setAttribute("aria-label", `Progress of ${visible(name)}`);
    this.#bar.hidden = true;
    this.view = el("li", { class: `entry file ${whose}` },
      el("p", { class: "filename" }, theirs(name), el("span", { class: "hint" }, ` ${size(bytes)}`)),
      this.#bar, this.#state, this.#buttons, clock(),
    );
  }

  /** send sends the file over the channel that open gives. */
  async send(open: () => Promise<Channel>, file: File): Promise<void> {
    this.#state.textContent = "Waiting for the other side…";
    this.#buttons.replaceChildren(this.#stopButton());
    const sum = await sendFile(await open(), this.name, file, (n) => this.#progress(n), this.stop.signal);
    this.#done("Sent and verified", sum);
  }

  /** receive asks the user about a file, and takes it. shown is called with the item once there is one. */
  static async receive(channel: Channel, shown: (item: FileItem) => void): Promise<void> {
    let item: FileItem | undefined;
    let kept: Kept | undefined;
    const stop = new AbortController();
    try {
      const sum = await receiveFile(
        channel,
        async (a: Announced) => {
          item = new FileItem("yours", a.name, a.size);
          item.stop.signal.addEventListener("abort", () => stop.abort(item!.stop.signal.reason));
          shown(item);
          await item.#ask();
          return (kept = await place(a.size));
        },
        (n) => item!.#progress(n),
        stop.signal,
      );
      item!.#done("Received and verified", sum);
      item!.#save(await kept!.file());
    } catch (e) {
      const why = e instanceof Error ? e.message : String(e);
      item?.failed(e instanceof DeclinedByUser ? "You declined" : why);
    }
  }

  /** failed shows why it came to nothing. */
  failed(why: string): void {
    this.view.classList.add("failed");
    this.#bar.hidden = true;
    this.#buttons.replaceChildren();
    this.#state.textContent = visible(why);
  }

  #ask(): Promise<void> {
    this.#state.textContent = "Do you want this file?";
    return new Promise((yes, no) => {
      const accept = el("button", { type: "button", click: () => {
        this.#buttons.replaceChildren(this.#stopButton());
        yes();
      } }, "Accept");
      const decline = el("button", { type: "button", class: "quiet", click: () => no(new DeclinedByUser()) }, "Decline");
      for (const b of [accept, decline]) b.setAttribute("aria-label", `${b.textContent} ${visible(this.name)}`);
      this.#buttons.replaceChildren(accept, decline);
    });
  }

  #stopButton(): HTMLElement {
    return el("button", { type: "button", class: "quiet", "aria-label": `Stop ${visible(this.name)}`, click: () => this.stop.abort(new DeclinedError("stopped")) }, "Stop");
  }

  /** #progress draws at most every 100 ms. */
  #progress(n: number): void {
    const now = performance.now();
    this.#began ||= now;
    if (now - this.#drawn < 100 && n < this.bytes) return;
    this.#drawn = now;
    const seconds = (now - this.#began) / 1000;
    this.#bar.hidden = false;
    this.#bar.value = this.bytes === 0 ? 1 : n / this.bytes;
    const speed = seconds > 0.3 ? ` · ${size(n / seconds)}/s` : "";
    this.#state.textContent = `${size(n)} of ${size(this.bytes)}${speed}`;
  }

  #done(what: string, sum: string): void {
    this.#bar.hidden = true;
    this.view.classList.add("done");
    this.view.dataset["sha256"] = sum;
    this.#state.replaceChildren(`✓ ${what}`);
    this.#buttons.replaceChildren(el("details", {}, el("summary", {}, "SHA-256"), el("code", { class: "id small" }, sum)));
  }

  #save(file: Blob): void {
    const url = URL.createObjectURL(file);
    this.#buttons.prepend(el("a", { class: "button", href: url, download: this.name }, "Save"));
  }
}

class DeclinedByUser extends Error {
  constructor() {
    super("declined");
  }
}
