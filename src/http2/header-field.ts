// One decoded header field with what request validation asks of it, worked out once: an entry of the dynamic table is
// checked when it is inserted, not in each of the thousands of requests that refer to it.
//
// Not a policy: which fields a request may have is request-head.ts's.

/** Names that the engine itself looks at. Everything else is `other`. */
export const FieldKind = {
  other: 0,
  method: 1,
  scheme: 2,
  authority: 3,
  path: 4,
  /** A name that starts with a colon and is none of the request's four. */
  pseudoUnknown: 5,
  /** Forbidden in HTTP/2 (RFC 9113, 8.2.2). */
  connectionSpecific: 6,
  te: 7,
  contentLength: 8,
  contentType: 9,
} as const;
export type FieldKind = (typeof FieldKind)[keyof typeof FieldKind];

const kinds: ReadonlyMap<string, FieldKind> = new Map<string, FieldKind>([
  [':method', FieldKind.method],
  [':scheme', FieldKind.scheme],
  [':authority', FieldKind.authority],
  [':path', FieldKind.path],
  ['connection', FieldKind.connectionSpecific],
  ['keep-alive', FieldKind.connectionSpecific],
  ['proxy-connection', FieldKind.connectionSpecific],
  ['transfer-encoding', FieldKind.connectionSpecific],
  ['upgrade', FieldKind.connectionSpecific],
  ['te', FieldKind.te],
  ['content-length', FieldKind.contentLength],
  ['content-type', FieldKind.contentType],
]);

/** What RFC 7541, 4.1 adds to the octets of name and value for an entry's size. */
export const fieldOverheadBytes: number = 32;

export class HeaderField {
  readonly name: string;
  readonly value: string;
  readonly kind: FieldKind;
  /** Octets of name and value, and 32 (RFC 7541, 4.1; RFC 9113's header list size counts the same). */
  readonly bytes: number;
  /** Name and value hold only octets that RFC 9113, 8.2.1 allows. */
  readonly valid: boolean;
  private readonly validName: boolean;

  /** `named`: a field of the same name, whose name was looked at before. */
  constructor(name: string, value: string, named: HeaderField | null = null) {
    this.name = name;
    this.value = value;
    this.bytes = name.length + value.length + fieldOverheadBytes;
    if (named === null) {
      const known = kinds.get(name);
      this.kind = known ?? (name.charCodeAt(0) === 0x3a ? FieldKind.pseudoUnknown : FieldKind.other);
      this.validName = known !== undefined || isName(name);
    } else {
      this.kind = named.kind;
      this.validName = named.validName;
    }
    this.valid = this.validName && isValue(value);
  }
}

/** No capitals, controls, spaces, non-ASCII; a colon only as a pseudo-header's first (RFC 9113, 8.2.1). */
function isName(name: string): boolean {
  if (name.length === 0) return false;
  for (let i = 0; i < name.length; i += 1) {
    const code = name.charCodeAt(i);
    if (code <= 0x20 || code >= 0x7f) return false;
    if (code >= 0x41 && code <= 0x5a) return false;
    if (code === 0x3a && i > 0) return false;
  }
  return name !== ':';
}

/** No NUL, CR, LF; no space or tab at either end (RFC 9113, 8.2.1). */
function isValue(value: string): boolean {
  const length = value.length;
  if (length === 0) return true;
  for (let i = 0; i < length; i += 1) {
    const code = value.charCodeAt(i);
    if (code === 0 || code === 10 || code === 13) return false;
  }
  const first = value.charCodeAt(0);
  const last = value.charCodeAt(length - 1);
  return first !== 0x20 && first !== 9 && last !== 0x20 && last !== 9;
}
