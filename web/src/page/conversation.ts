// What is said and sent between this device and another one.

import {
  badFileName, type Channel, closedHere, Code, type Connection, type Device, type DeviceID, filesScheme, type Incoming, type Message, messagesURI, type Messenger,
  type Offered, type Receiver, type Taking,
} from "../peerlink";
import { clock, el, groups, say, spoken, theirs, visible } from "./dom";
import { Arrivals, FileItem } from "./fileitem";

/** The most that is shown and waited for. */
const maxEntries = 1000;
const maxChats = 4;
const maxOffers = 8;

export type State = "idle" | "connecting" | "connected" | "silent" | "lost";

const stateText: Record<State, string> = {
  idle: "Not connected",
  connecting: "Connecting…",
  connected: "Connected",
  silent: "Does not answer…",
  lost: "Connection lost",
};

/** Host is what a conversation needs of the page. */
export interface Host {
  device(): Device | undefined;
  messenger(): Messenger | undefined;
  readonly receiver: Receiver;
  /** lasting: messages are kept when the page is closed. */
  readonly lasting: boolean;
  /** changed is called when name, state or unread have changed. */
  changed(c: Conversation): void;
  back(): void;
  block(c: Conversation): void;
}

/** Conversation is with one device, and lives as long as the page. */
export class Conversation {
  state: State = "idle";
  unread = 0;
  readonly view: HTMLElement;
  #chats = 0;
  #offers = 0;
  #newest = 0; // of the messages that are shown
  readonly #files = new Map<Element, FileItem>(); // that came, by their elements in the log
  readonly #marks = new Map<number, HTMLElement>(); // of messages that wait
  #pathTold = "";
  #pinned = true;
  readonly #log = el("ol", { class: "log", role: "log", "aria-label": "Messages", tabindex: 0 });
  readonly #title = el("h2");
  readonly #state = el("p", { class: "state" });
  readonly #connect = el("button", { type: "button", class: "quiet", click: () => this.#toggle() }, "Connect");
  readonly #input = el("textarea", { rows: 1, "aria-label": "Message", placeholder: "Write a message", maxlength: 16000 });

  constructor(
    readonly id: DeviceID,
    public name: string,
    private readonly host: Host,
  ) {
    this.view = this.#build();
    this.#follow();
    this.#draw();
  }

  get title(): string {
    return this.name === "" ? `Device ${this.id.slice(0, 8)}` : this.name;
  }

  get stateText(): string {
    return stateText[this.state];
  }

  /** seen is called when the user looks at it. */
  seen(): void {
    this.unread = 0;
    this.host.changed(this);
  }

  /** gone frees the files that came: the conversation is not shown again. */
  gone(): void {
    for (const item of this.#files.values()) item.gone();
    this.#files.clear();
  }

  focus(): void {
    this.#input.focus();
  }

  /** connect makes the connection, if there is none. */
  async connect(): Promise<void> {
    const device = this.host.device();
    if (!device || this.state === "connected" || this.state === "connecting") return;
    this.#become("connecting");
    try {
      await device.connect(this.id);
    } catch (e) {
      if (device.connection(this.id)) return; // the other one was quicker
      this.#become("lost");
      this.note(`Could not connect: ${reason(e)}`, "alarm");
    }
  }

  // What the device tells.

  connected(c: Connection): void {
    this.name = c.peer.name;
    this.#pathTold = c.link.path;
    this.#become("connected");
    this.note("Connected");
  }

  lost(why: Error, left: number): void {
    if (left > 0) return;
    if (closedHere(why)) {
      this.#become("idle");
      this.note("Disconnected");
    } else {
      this.#become("lost");
      this.note(`Connection lost: ${reason(why)}`, "alarm");
    }
  }

  beat(roundTrip: number, silent: boolean): void {
    if (this.state !== "connected" && this.state !== "silent") return;
    if (silent !== (this.state === "silent")) this.#become(silent ? "silent" : "connected");
    const trip = ` · ${roundTrip < 9.95 ? roundTrip.toFixed(1) : Math.round(roundTrip)} ms`;
    if (silent) this.#state.replaceChildren(this.stateText);
    else this.#state.replaceChildren(this.stateText, trip, el("span", { class: "path" }, ` · ${this.#pathTold}`));
  }

  /** request takes a channel that the device asks for. */
  request(r: Incoming): void {
    const [messages, files] = [r.name === messagesURI, r.name.startsWith(filesScheme)];
    if (messages && this.#chats < maxChats) void this.#take(r.accept());
    else if (files && this.#offers < maxOffers) void this.#receive(r.accept());
    else if (messages || files) r.decline("too many at once", Code.resources);
    else r.decline("not taken here", Code.noListener);
  }

  // Messages.

  /** recall shows what was kept, here or by another tab. */
  recall(kept: Message[]): void {
    for (const m of kept) {
      const mark = this.#marks.get(m.seq);
      if (mark) this.#marked(m, mark);
      else if (m.seq > this.#newest) this.#show(m);
    }
  }

  /** message shows one that is new, or what became of another. */
  message(m: Message): void {
    const mark = this.#marks.get(m.seq);
    if (mark) this.#marked(m, mark);
    else this.#show(m);
    if (!m.mine) this.#noticed(`${this.title}: ${m.text}`);
  }

  #show(m: Message): void {
    this.#newest = m.seq;
    const mark = el("p", { class: "hint mark" });
    const text = el("p", {}, spoken(m.text));
    if (!m.mine) this.#entry("yours", m.at, text);
    else this.#marked(m, mark, this.#entry("mine", m.at, text, mark));
  }

  #marked(m: Message, mark: HTMLElement, entry = mark.parentElement): void {
    if (m.mark === "waiting") this.#marks.set(m.seq, mark);
    else this.#marks.delete(m.seq);
    mark.textContent = m.mark === "waiting" ? `Waiting for the device${this.host.lasting ? "" : ", while this page is open"}` : m.mark === "delivered" ? "✓ Delivered" : `Not taken: ${visible(m.reason)}`;
    entry?.classList.toggle("failed", m.mark === "failed");
    if (m.mark === "failed") say(`Not taken: ${m.reason}`, "alarm");
  }

  async #say(text: string): Promise<void> {
    try {
      const messenger = this.host.messenger();
      if (!messenger) throw new Error("this tab is not the device's");
      await messenger.send(this.id, text);
    } catch (e) {
      this.note(`Not kept: ${reason(e)}`, "alarm");
      this.#input.value ||= text;
    }
  }

  async #take(channel: Channel): Promise<void> {
    this.#chats++;
    try {
      await this.host.messenger()?.take(this.id, channel);
    } catch {
      // what was not taken comes again
    } finally {
      this.#chats--;
    }
  }

  // Files.

  #send(files: Iterable<File>): void {
    for (const file of files) {
      const bad = badFileName(file.name);
      if (bad !== "") this.note(`${file.name} cannot be sent: ${bad}`, "alarm");
      else this.#sendOne(file);
    }
  }

  #sendOne(file: File): void {
    const item = new FileItem("mine", file.name, file.size);
    this.#add(item.view);
    const open = (name: string, signal: AbortSignal) => {
      const device = this.host.device();
      return device ? device.open(this.id, name, signal) : Promise.reject(new Error("this tab is not the device's"));
    };
    item.send(open, file, (why) => say(why ? `${file.name}: ${why.message}` : `${file.name} was sent`, why ? "alarm" : "said"));
  }

  async #receive(channel: Channel): Promise<void> {
    this.#offers++;
    try {
      await this.host.receiver.serve(channel, this.id);
    } catch {
      // its item tells
    } finally {
      this.#offers--;
    }
  }

  /** offered asks the user about files. */
  offered(o: Offered, gone: AbortSignal, stop: (why: Error) => void): Promise<Taking> {
    return Arrivals.ask(o, gone, stop, (item) => {
      this.#add(item.view);
      this.#files.set(item.view, item);
      this.#noticed(`${this.title} offers ${o.entries === 1 ? "the file" : "files:"} ${item.name}`);
    });
  }

  // The view.

  /** note shows what has happened. */
  note(text: string, how: "said" | "alarm" = "said"): void {
    this.#add(el("li", { class: how === "alarm" ? "note bad" : "note" }, el("span", {}, visible(text)), clock()));
    say(`${this.title}: ${text}`, how);
  }

  #noticed(text: string): void {
    if (this.view.isConnected && !document.hidden) return;
    this.unread++;
    this.host.changed(this);
    say(text);
  }

  #entry(whose: "mine" | "yours", at: number, ...content: HTMLElement[]): HTMLElement {
    const li = el("li", { class: `entry ${whose}` }, el("span", { class: "unseen" }, whose === "mine" ? "You: " : `${this.title}: `), ...content, clock(new Date(at)));
    this.#add(li);
    return li;
  }

  #add(li: HTMLElement): void {
    if (li.classList.contains("mine")) this.#pinned = true;
    this.#log.append(li);
    const oldest = this.#log.firstElementChild;
    if (!oldest || this.#log.childElementCount <= maxEntries) return;
    oldest.remove();
    this.#files.get(oldest)?.gone();
    this.#files.delete(oldest);
  }

  /** #follow keeps the end of the log in view, unless the user has scrolled up. */
  #follow(): void {
    const end = () => {
      if (this.#pinned) this.#log.scrollTop = this.#log.scrollHeight;
    };
    this.#log.addEventListener("scroll", () => (this.#pinned = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 40));
    new MutationObserver(end).observe(this.#log, { childList: true, subtree: true, attributes: true, attributeFilter: ["hidden", "class"] });
    new ResizeObserver(end).observe(this.#log);
  }

  #become(s: State): void {
    this.state = s;
    this.#draw();
    this.host.changed(this);
  }

  #draw(): void {
    this.#title.replaceChildren(theirs(this.title));
    this.view.dataset["state"] = this.state;
    this.#state.textContent = this.stateText;
    const up = this.state === "connected" || this.state === "silent";
    this.#connect.textContent = up ? "Disconnect" : this.state === "lost" ? "Reconnect" : "Connect";
    this.#connect.disabled = this.state === "connecting";
  }

  #toggle(): void {
    if (this.state === "connected" || this.state === "silent") this.host.device()?.disconnect(this.id);
    else void this.connect();
  }

  #build(): HTMLElement {
    const picker = el("input", { type: "file", multiple: true, class: "unseen", tabindex: -1, "aria-hidden": "true", change: () => {
      this.#send([...(picker.files ?? [])]);
      picker.value = "";
    } });
    const form = el("form", { class: "composer", submit: (e: Event) => {
      e.preventDefault();
      this.#submit();
    } },
      el("button", { type: "button", class: "quiet icon", "aria-label": "Send a file", title: "Send a file", click: () => picker.click() }, "+"),
      picker, this.#input, el("button", { type: "submit" }, "Send"),
    );
    this.#input.addEventListener("keydown", (e) => {
      if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
      e.preventDefault();
      this.#submit();
    });
    const view = el("div", { class: "conversation" },
      el("header", { class: "head" },
        el("button", { type: "button", class: "quiet icon back", "aria-label": "Back to the devices", click: () => this.host.back() }, "‹"),
        el("div", { class: "who" }, this.#title, this.#state, el("code", { class: "id small" }, groups(this.id))),
        this.#connect,
        el("button", { type: "button", class: "quiet", click: () => this.host.block(this) }, "Block"),
      ),
      this.#log, form,
    );
    this.#droppable(view);
    return view;
  }

  #submit(): void {
    const text = this.#input.value;
    this.#input.value = "";
    if (text.trim() !== "") void this.#say(text);
  }

  #droppable(view: HTMLElement): void {
    const over = (on: boolean) => view.classList.toggle("dropping", on);
    view.addEventListener("dragover", (e) => {
      if (!e.dataTransfer?.types.includes("Files")) return;
      e.preventDefault();
      over(true);
    });
    view.addEventListener("dragleave", () => over(false));
    view.addEventListener("drop", (e) => {
      e.preventDefault();
      over(false);
      this.#send([...(e.dataTransfer?.files ?? [])]);
    });
  }
}

function reason(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}
