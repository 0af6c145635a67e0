// The page's state: this device, the others, and the one that is looked at.

import {
  type Connection, Device, type DeviceConfig, type DeviceID, type Identity, type LineState, MessageStore, Messenger, parseDeviceID, Receiver, save,
} from "../peerlink";
import { Conversation, type Host } from "./conversation";
import { el, get, groups, say, theirs } from "./dom";
import { recall, remember } from "./memory";
import { qr } from "./qr";

const lineText: Record<LineState, string> = {
  connecting: "Connecting…",
  connected: "Reachable",
  replaced: "Connected from elsewhere",
  closed: "Not reachable",
};
/** Conversations that strangers can begin. */
const maxConversations = 200;

/** How many messages of a conversation are shown. */
const shown = 500;

/** App is made once, and started whenever this tab becomes the device's. */
export class App implements Host {
  #device: Device | undefined;
  #messenger: Messenger | undefined;
  #store: MessageStore | undefined;
  #stops = 0; // how often it was stopped
  readonly receiver = new Receiver(async (o, gone, stop) => {
    const with_ = this.#conversations.get(o.from);
    if (!with_) throw new Error("not taken here");
    return with_.offered(o, gone, stop);
  });
  #me: Identity;
  readonly #conversations = new Map<DeviceID, Conversation>();
  readonly #blocked = new Map<DeviceID, string>();
  #shown: Conversation | undefined;
  readonly #welcome = get("welcome");

  constructor(
    me: Identity,
    private readonly config: DeviceConfig,
  ) {
    this.#me = me;
    for (const k of recall()) {
      if (k.blocked) this.#blocked.set(k.id, k.name);
      else this.#conversations.set(k.id, new Conversation(k.id, k.name, this));
    }
    this.#showMe();
    this.#listen();
    this.#list();
  }

  /** start makes this tab the device once first is over, unless stop is called before. */
  async start(first?: Promise<void>): Promise<void> {
    const stops = this.#stops;
    await first;
    const store = await MessageStore.open();
    if (stops !== this.#stops) return;
    this.#store = store;
    for (const c of this.#conversations.values()) c.recall(store.history(c.id, shown));
    const device: Device = new Device(this.#me, { ...this.config, trusted: (p) => {
      if (this.#blocked.has(p.device)) throw new Error("blocked");
    } }, {
      line: (s, why) => this.#line(s, why),
      connected: (c) => {
        this.#with(c)?.connected(c);
        this.#messenger?.connected(c.peer.device);
      },
      lost: (c, why, left) => this.#conversations.get(c.peer.device)?.lost(why, left),
      beat: (c, rtt, silent) => {
        if (device.connection(c.peer.device) === c) this.#conversations.get(c.peer.device)?.beat(rtt, silent);
      },
      request: (c, r) => {
        const with_ = this.#with(c);
        if (with_) with_.request(r);
        else r.decline("too many conversations");
      },
    });
    this.#device = device;
    this.#messenger = new Messenger(
      store,
      (peer, name, signal) => (this.#conversations.has(peer) ? device.open(peer, name, signal) : Promise.reject(new Error("blocked, or forgotten"))),
      (m) => this.#conversations.get(m.peer)?.message(m),
    );
  }

  /** #begin makes the conversation with a device. */
  #begin(id: DeviceID, name: string): Conversation {
    const c = new Conversation(id, name, this);
    this.#conversations.set(id, c);
    c.recall(this.#store?.history(id, shown) ?? []);
    return c;
  }

  /** stop ends all connections, as another tab is the device now. */
  stop(): void {
    this.#stops++;
    this.#messenger?.close();
    this.#device?.close();
    this.#device = this.#messenger = undefined;
  }

  // Host.

  device(): Device | undefined {
    return this.#device;
  }

  messenger(): Messenger | undefined {
    return this.#messenger;
  }

  get lasting(): boolean {
    return this.#store?.problem === "";
  }

  changed(c: Conversation): void {
    if (c.unread > 0 && c === this.#shown && !document.hidden) c.unread = 0;
    this.#list();
  }

  back(): void {
    this.#shown = undefined;
    get("conversation").replaceChildren(this.#welcome);
    document.body.classList.remove("talking");
    this.#list();
    get("connect-id").focus();
  }

  block(c: Conversation): void {
    this.#device?.disconnect(c.id);
    this.#conversations.delete(c.id);
    c.gone();
    this.#blocked.set(c.id, c.name);
    this.#keep();
    this.back();
    say(`${c.title} is blocked`);
  }

  // Others.

  /** #with returns the conversation with a device that has connected. */
  #with(c: Connection): Conversation | undefined {
    let with_ = this.#conversations.get(c.peer.device);
    if (with_) return with_;
    if (this.#conversations.size >= maxConversations) return undefined;
    with_ = this.#begin(c.peer.device, c.peer.name);
    if (!this.#shown) this.#show(with_, false);
    return with_;
  }

  #show(c: Conversation, focus: boolean): void {
    this.#shown = c;
    get("conversation").replaceChildren(c.view);
    document.body.classList.add("talking");
    c.seen();
    if (focus) c.focus();
  }

  #line(s: LineState, why?: string): void {
    const line = get("line");
    line.textContent = lineText[s];
    line.dataset["state"] = s;
    line.title = why ?? "";
  }

  #list(): void {
    this.#keep();
    const items = [...this.#conversations.values()].map((c) => this.#item(c));
    items.push(...[...this.#blocked].map(([id, name]) => this.#blockedItem(id, name)));
    const had = document.activeElement?.closest("[data-device]")?.getAttribute("data-device");
    get("devices").replaceChildren(...items);
    if (had) document.querySelector<HTMLElement>(`[data-device="${had}"] button`)?.focus();
    get("devices-none").hidden = items.length > 0;
    const unread = [...this.#conversations.values()].reduce((n, c) => n + c.unread, 0);
    document.title = unread > 0 ? `(${unread}) peerlink` : "peerlink";
  }

  #item(c: Conversation): HTMLElement {
    const unread = c.unread > 0 ? [el("span", { class: "count" }, String(c.unread), el("span", { class: "unseen" }, " unread"))] : [];
    return el("li", { "data-device": c.id, "data-state": c.state },
      el("button", { type: "button", class: "device", "aria-current": c === this.#shown ? "true" : false, click: () => this.#show(c, true) },
        el("span", { class: "dot", "aria-hidden": "true" }),
        el("span", { class: "grow" }, el("strong", {}, theirs(c.title)), el("small", {}, `${c.id.slice(0, 8)} · ${c.stateText}`)),
        ...unread,
      ),
    );
  }

  #blockedItem(id: DeviceID, name: string): HTMLElement {
    return el("li", { "data-device": id, "data-state": "blocked", class: "row" },
      el("span", { class: "grow" }, theirs(name || id.slice(0, 8)), el("small", {}, `${id.slice(0, 8)} · Blocked`)),
      el("button", { type: "button", class: "quiet", click: () => {
        this.#blocked.delete(id);
        this.#begin(id, name);
        this.#list();
      } }, "Allow"),
    );
  }

  #keep(): void {
    remember([
      ...[...this.#blocked].map(([id, name]) => ({ id, name, blocked: true })),
      ...[...this.#conversations.values()].map((c) => ({ id: c.id, name: c.name, blocked: false })),
    ]);
  }

  // This device.

  #showMe(): void {
    get<HTMLInputElement>("me-name").value = this.#me.name;
    get("me-id").textContent = groups(this.#me.device);
    const local = isLoopback();
    const text = local ? this.#me.device.toUpperCase() : `${location.origin}${location.pathname}#${this.#me.device}`;
    get("qr").replaceChildren(qr(text, "QR code of this device's id"));
  }

  #listen(): void {
    get("me-form").addEventListener("submit", (e) => {
      e.preventDefault();
      void this.#rename(get<HTMLInputElement>("me-name").value.trim());
    });
    get("me-copy").addEventListener("click", () => void this.#copy());
    get("me-qr").addEventListener("click", () => {
      const box = get("qr");
      box.hidden = !box.hidden;
      get("me-qr").setAttribute("aria-expanded", String(!box.hidden));
    });
    get("connect-form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.#connect(get<HTMLInputElement>("connect-id"));
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.#shown?.seen();
      this.#device?.doubt();
    });
    addEventListener("online", () => this.#device?.doubt());
    addEventListener("pagehide", () => this.#device?.close());
    addEventListener("pageshow", (e) => e.persisted && location.reload());
    const linked = /^#([0-9a-fA-F]{64})$/.exec(location.hash);
    if (linked) get<HTMLInputElement>("connect-id").value = linked[1]!;
  }

  #connect(input: HTMLInputElement): void {
    const error = get("connect-error");
    error.textContent = "";
    input.removeAttribute("aria-invalid");
    try {
      const id = parseDeviceID(input.value);
      if (id === this.#me.device) throw new Error("That is this device's own id.");
      if (this.#blocked.delete(id)) say("The device was blocked and is allowed again");
      const c = this.#conversations.get(id) ?? this.#begin(id, "");
      input.value = "";
      this.#show(c, true);
      void c.connect();
    } catch (e) {
      input.setAttribute("aria-invalid", "true");
      error.textContent = e instanceof Error ? e.message : String(e);
    }
  }

  async #rename(name: string): Promise<void> {
    try {
      const me = await this.#me.renamed(name);
      await save(me);
      this.#me = me;
      this.#showMe();
      say("Renamed");
      if (this.#device) {
        this.stop();
        await this.start(); // others learn the name from the certificates of a new connection
      }
    } catch (e) {
      say(`Not renamed: ${e instanceof Error ? e.message : String(e)}`, "alarm");
      get<HTMLInputElement>("me-name").value = this.#me.name;
    }
  }

  async #copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.#me.device);
      get("me-copy").textContent = "Copied";
      say("The device id was copied");
      setTimeout(() => (get("me-copy").textContent = "Copy id"), 2000);
    } catch {
      getSelection()?.selectAllChildren(get("me-id"));
      say("The browser did not allow to copy: the id is selected, copy it from there", "alarm");
    }
  }
}

/** isLoopback tells whether the page comes from this machine. */
export function isLoopback(): boolean {
  return ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
}
