// The page of “peerchat web”: this browser as a device.

import { type DeviceConfig, load } from "../peerlink";
import { App, isLoopback } from "./app";
import { el, get } from "./dom";
import { clear } from "./files";
import { claim } from "./tabs";

/** Config is what the server says at config.json. */
interface Config {
  signal?: string;
  iceServers?: { urls: string; username?: string; credential?: string }[];
  relayOnly?: boolean;
}

/** notice tells what keeps the page from working, and what can be done. */
function notice(text: string, button?: { label: string; press: () => void }): void {
  const box = get("notice");
  const children: HTMLElement[] = [el("p", {}, text)];
  if (button) children.push(el("button", { type: "button", click: () => button.press() }, button.label));
  box.replaceChildren(...children);
  box.hidden = text === "";
}

/** How long the servers that were told are used for further calls, in milliseconds. */
const toldLife = 60_000;

async function told(): Promise<Config> {
  const r = await fetch("config.json", { cache: "no-store" });
  if (!r.ok) throw new Error(`the server did not give its configuration: ${r.status}`);
  return (await r.json()) as Config;
}

/** servers are those of now, as their credentials end; those of before where the page's server has gone. */
function servers(first: Config): () => Promise<RTCIceServer[]> {
  let [last, at] = [first, performance.now()];
  return async () => {
    if (performance.now() - at > toldLife) {
      try {
        [last, at] = [await told(), performance.now()];
      } catch {
        // whoever has loaded the page needs its server no more
      }
    }
    return last.iceServers ?? [];
  };
}

async function configuration(): Promise<DeviceConfig> {
  const c = await told();
  const own = new URL("switchboard", location.href);
  own.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  own.hash = "";
  return {
    signal: c.signal || own.href,
    iceServers: servers(c),
    relayOnly: c.relayOnly === true,
    // Browsers give names instead of addresses to pages that use no camera.
    reachable: { loopback: isLoopback(), names: true },
  };
}

function defaultName(): string {
  const ua = navigator.userAgent;
  const browser = ["Firefox", "Edg", "Chrome", "Safari"].find((b) => ua.includes(b)) ?? "browser";
  const system = ["Android", "iPhone", "iPad", "Windows", "Mac", "Linux"].find((s) => ua.includes(s));
  return `${browser === "Edg" ? "Edge" : browser}${system ? ` on ${system}` : ""}`;
}

async function main(): Promise<void> {
  if (!isSecureContext || !crypto.subtle) throw new Error("this page needs HTTPS, or to be opened at http://localhost or http://127.0.0.1: elsewhere browsers give pages no keys");
  if (!("RTCPeerConnection" in globalThis)) throw new Error("this browser has no WebRTC, or it is switched off");
  const [me, config] = await Promise.all([load(defaultName()), configuration()]);
  const app = new App(me, config);
  get("app").hidden = false;
  const tabs = {
    begin: () => {
      notice("");
      app
        .start(clear())
        .catch((e: unknown) => notice(`Cannot start: ${e instanceof Error ? e.message : String(e)}`));
    },
    taken: () => {
      app.stop();
      notice("This device has moved to another tab.", { label: "Use it here", press: () => claim(tabs, true) });
    },
    elsewhere: () => notice("This device is open in another tab of this browser.", { label: "Use it here", press: () => claim(tabs, true) }),
  };
  claim(tabs);
}

main().catch((e: unknown) => notice(`Cannot start: ${e instanceof Error ? e.message : String(e)}`));