// What the page remembers besides its identity: devices it has talked to, and
// those that are blocked. Both are bounded and read with suspicion.

import { type DeviceID, parseDeviceID } from "../peerlink";

const key = "peerlink.devices";
const most = 100;

/** Known is a device that was talked to. */
export interface Known {
  id: DeviceID;
  name: string;
  blocked: boolean;
}

/** recall returns what was remembered. */
export function recall(): Known[] {
  try {
    const all: unknown = JSON.parse(localStorage.getItem(key) ?? "[]");
    if (!Array.isArray(all)) return [];
    return all.slice(0, most).flatMap((k: Partial<Known>) => {
      try {
        return [{ id: parseDeviceID(String(k.id)), name: String(k.name ?? "").slice(0, 64), blocked: k.blocked === true }];
      } catch {
        return [];
      }
    });
  } catch {
    return [];
  }
}

/** remember keeps the first hundred, the blocked ones before others. */
export function remember(all: Known[]): void {
  const ordered = [...all].sort((a, b) => Number(b.blocked) - Number(a.blocked)).slice(0, most);
  try {
    localStorage.setItem(key, JSON.stringify(ordered));
  } catch {
    // a full or forbidden store: the page works without
  }
}
