// Files in a conversation: asked about, under way, done or failed.

import { type Arriving, type Channel, DeclinedError, FileSender, type FileSink, type Offered, StoppedError, type Taking } from "../peerlink";
import { clock, el, size, theirs, visible } from "./dom";
import { type Kept, place, room } from "./files";

/** FileItem is shown in the log: one file that is sent, or what one offer brings. */
export class FileItem {
  readonly view: HTMLElement;
  readonly #bar = el("progress", { max: 1, value: 0 });
  readonly #state = el("p", { class: "hint", role: "status" });
  readonly #buttons = el("div", { class: "row" });
  #began = 0;
  #from = 0; // where it has begun: after a cut not at 0
  #drawn = 0;
  #gone = false;
  readonly #frees: (() => void)[] = []; // of the files that were kept

  constructor(
    whose: "mine" | "yours",
    readonly name: string,
    private readonly bytes: number,
    readonly entries = 1,
  ) {
    this.#bar.setAttribute("aria-label", `Progress of ${visible(name)}`);
    this.#bar.hidden = true;
    const what = entries === 1 ? size(bytes) : `${entries} files and folders, ${size(bytes)}`;
    this.view = el("li", { class: `entry file ${whose}` },
      el("p", { class: "filename" }, theirs(name), el("span", { class: "hint" }, ` ${what}`)),
      this.#bar, this.#state, this.#buttons, clock(),
    );
  }

  /** send sends a file over the channels that open gives. over is told how it ended; the user may send it again then. */
  send(open: (name: string, signal: AbortSignal) => Promise<Channel>, file: File, over: (why?: Error) => void): void {
    const sender = new FileSender(open, this.name, file, {
      progress: (n) => this.progress(n),
      cut: () => (this.#state.textContent = "Cut. Trying to go on…"),
    });
    const run = async (): Promise<void> => {
      const stop = new AbortController();
      this.#begin("Waiting for the other side…", () => stop.abort(new StoppedError()));
      try {
        this.done("Sent and verified", await sender.send(stop.signal));
        over();
      } catch (e) {
        const why = e instanceof Error ? e : new Error(String(e));
        this.failed(why instanceof DeclinedError && why.reason === "" ? "Declined" : capital(why.message));
        if (!(why instanceof DeclinedError)) this.#button("Send again", () => void run());
        over(why);
      }
    };
    void run();
  }

  /** ask resolves when the user wants what is offered, and rejects where not, or where the sender has gone. */
  ask(gone: AbortSignal, stop: (why: Error) => void): Promise<void> {
    this.#state.textContent = "Do you want this?";
    return new Promise((yes, no) => {
      gone.addEventListener("abort", () => no(gone.reason), { once: true });
      const accept = el("button", { type: "button", click: () => {
        this.#begin("Waiting for the other side…", () => {
          stop(new StoppedError());
          this.failed("Stopped");
        });
        yes();
      } }, "Accept");
      const decline = el("button", { type: "button", class: "quiet", click: () => no(new DeclinedByUser()) }, "Decline");
      for (const b of [accept, decline]) b.setAttribute("aria-label", `${b.textContent} ${visible(this.name)}`);
      this.#buttons.replaceChildren(accept, decline);
    });
  }

  #begin(what: string, stop: () => void): void {
    this.view.classList.remove("failed");
    this.#began = 0;
    this.#state.textContent = what;
    this.#buttons.replaceChildren();
    this.#button("Stop", stop);
  }

  #button(what: string, press: () => void): void {
    this.#buttons.append(el("button", { type: "button", class: "quiet", "aria-label": `${what} ${visible(this.name)}`, click: press }, what));
  }

  /** failed shows why it came to nothing. */
  failed(why: string): void {
    this.view.classList.add("failed");
    this.#bar.hidden = true;
    this.#buttons.replaceChildren();
    this.#state.textContent = visible(why);
  }

  /** cut shows that it may go on. */
  cut(why: Error): void {
    this.#bar.hidden = true;
    this.#began = 0;
    this.#state.textContent = `Cut: ${visible(why.message)}. It goes on when the sender comes back.`;
  }

  /** progress draws at most every 100 ms. */
  progress(n: number): void {
    const now = performance.now();
    if (this.#began === 0) [this.#began, this.#from] = [now, n];
    if (now - this.#drawn < 100 && n < this.bytes) return;
    this.#drawn = now;
    const seconds = (now - this.#began) / 1000;
    this.#bar.hidden = false;
    this.#bar.value = this.bytes === 0 ? 1 : n / this.bytes;
    const speed = seconds > 0.3 ? ` · ${size((n - this.#from) / seconds)}/s` : "";
    this.#state.textContent = `${size(n)} of ${size(this.bytes)}${speed}`;
  }

  /** done shows that all is there; sum is of a single file. */
  done(what: string, sum?: string): void {
    this.#bar.hidden = true;
    this.view.classList.add("done");
    this.#state.replaceChildren(`✓ ${what}`);
    this.#buttons.replaceChildren();
    if (sum !== undefined) {
      this.view.dataset["blake3"] = sum;
      this.#buttons.append(el("details", {}, el("summary", {}, "BLAKE3"), el("code", { class: "id small" }, sum)));
    }
  }

  /** gone frees the files: the item has left the log, and nothing can be saved from it. */
  gone(): void {
    this.#gone = true;
    for (const free of this.#frees.splice(0)) free();
  }

  /** holds has free called when the item has left the log. */
  holds(free: () => void): void {
    if (this.#gone) free();
    else this.#frees.push(free);
  }

  /** save offers a file that is there; path is shown where there are several. */
  save(file: Blob, path: string): void {
    const name = path.slice(path.lastIndexOf("/") + 1);
    const href = URL.createObjectURL(file);
    this.holds(() => URL.revokeObjectURL(href));
    const link = el("a", { class: "button", href, download: name }, "Save");
    if (this.entries === 1) {
      this.#buttons.prepend(link);
      return;
    }
    link.setAttribute("aria-label", `Save ${visible(path)}`);
    this.view.insertBefore(el("div", { class: "row one" }, theirs(path, "span"), el("span", { class: "hint" }, size(file.size)), link), this.#buttons);
  }

  /** note shows what became of one of several. */
  note(text: string): void {
    this.view.insertBefore(el("p", { class: "hint" }, visible(text)), this.#buttons);
  }
}

/** Arrivals takes the files of one offer, and shows them. */
export class Arrivals implements Taking {
  readonly #at = new Map<string, number>();
  #one: { sum: string; show: () => Promise<void> } | undefined; // of an offer of one file, which is whole
  #bad: string[] = [];

  private constructor(private readonly item: FileItem) {}

  /** ask shows an offer and asks the user. shown is called with the item. */
  static async ask(o: Offered, gone: AbortSignal, stop: (why: Error) => void, shown: (item: FileItem) => void): Promise<Arrivals> {
    const more = o.names.length > 1 ? ` and ${o.names.length - 1} more` : "";
    const item = new FileItem("yours", o.names[0]! + more, o.bytes, o.entries);
    shown(item);
    try {
      await item.ask(gone, stop);
      await room(o.bytes);
      return new Arrivals(item);
    } catch (e) {
      item.failed(e instanceof DeclinedByUser ? "You declined" : capital(e instanceof Error ? e.message : String(e)));
      throw e;
    }
  }

  place(f: Arriving): Promise<Kept> {
    return place(f.size);
  }

  moved(f: Arriving, at: number): void {
    this.#at.set(f.path, at);
    let all = 0;
    for (const n of this.#at.values()) all += n;
    this.item.progress(all);
  }

  kept(f: Arriving, sum: string, sink: FileSink): void {
    const file = sink as Kept;
    this.item.holds(() => void file.forget());
    const show = async () => {
      try {
        this.item.save(await file.file(), f.path);
      } catch (e) {
        this.item.note(`${f.path}: ${String(e)}`);
      }
    };
    if (this.item.entries === 1) this.#one = { sum, show };
    else void show();
  }

  failed(f: Arriving, why: Error): void {
    this.#bad.push(why.message);
    if (this.item.entries > 1 && this.#bad.length <= 20) this.item.note(`${f.path}: ${why.message}`);
  }

  ended(why: Error | undefined, kept: number): void {
    if (why instanceof StoppedError) return this.item.failed("Stopped");
    if (why) return this.item.cut(why);
    const bad = shortfall(this.item.entries, kept, this.#bad);
    if (bad !== "") return this.item.failed(bad);
    this.item.done("Received and verified", this.#one?.sum);
    void this.#one?.show();
  }
}

/** shortfall says what is missing of the offered entries; "" where all of them were kept. bad tells why some have failed, the newest last. */
export function shortfall(entries: number, kept: number, bad: readonly string[]): string {
  if (kept >= entries) return "";
  return entries === 1 ? capital(bad.at(-1) ?? "the sender did not send it") : `${kept} of ${entries} came`;
}

function capital(s: string): string {
  return s.charAt(0).toUpperCase() + s.slice(1);
}

class DeclinedByUser extends Error {
  constructor() {
    super("declined");
  }
}
