// The services and methods that a server has, by path. Built at start, read-only afterwards.

import { assert } from '../base/assert.ts';
import type { ServerCall } from './call.ts';

export type MethodKind = 'unary' | 'server' | 'client' | 'bidi';

/**
 * Answers a call with one message by respond, respondWith or fail: at once or in any later turn. The request is
 * message[start, end), valid only during the handler's call.
 */
export type UnaryHandler = (call: ServerCall, message: Buffer, start: number, end: number) => void;

export interface StreamHandler {
  open(call: ServerCall): void;
  /** A message is message[start, end), valid only during the call. A `server` method gets exactly one, then halfClose. */
  message(call: ServerCall, message: Buffer, start: number, end: number): void;
  /** The client has sent its last message. */
  halfClose(call: ServerCall): void;
}

export interface MethodEntry {
  /** Position among the router's methods, for counters in typed arrays. */
  readonly index: number;
  readonly service: string;
  readonly name: string;
  /** `/service/name`. */
  readonly path: string;
  readonly kind: MethodKind;
  readonly unary: UnaryHandler | null;
  readonly stream: StreamHandler | null;
}

export class Router {
  private readonly entries: MethodEntry[] = [];
  private readonly byPath: Map<string, MethodEntry> = new Map();
  private readonly services: Set<string> = new Set();

  unary(service: string, method: string, handler: UnaryHandler): void {
    this.add(service, method, 'unary', handler, null);
  }

  stream(service: string, method: string, kind: 'server' | 'client' | 'bidi', handler: StreamHandler): void {
    this.add(service, method, kind, null, handler);
  }

  /** All methods in the order of their index. */
  methods(): readonly MethodEntry[] {
    return this.entries;
  }

  find(path: string): MethodEntry | undefined {
    return this.byPath.get(path);
  }

  /** What grpc-go says about a path that `find` does not know. */
  unknownPath(path: string): string {
    const slash = path.lastIndexOf('/');
    if (!path.startsWith('/') || slash === 0) return `malformed method name: ${JSON.stringify(path)}`;
    const service = path.slice(1, slash);
    if (!this.services.has(service)) return `unknown service ${service}`;
    return `unknown method ${path.slice(slash + 1)} for service ${service}`;
  }

  private add(
    service: string,
    name: string,
    kind: MethodKind,
    unary: UnaryHandler | null,
    stream: StreamHandler | null,
  ): void {
    const path = `/${service}/${name}`;
    assert(!this.byPath.has(path), 'a method is registered once');
    const entry: MethodEntry = { index: this.entries.length, service, name, path, kind, unary, stream };
    this.entries.push(entry);
    this.byPath.set(path, entry);
    this.services.add(service);
  }
}
