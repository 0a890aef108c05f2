// Log lines that come up while the configuration is read, before there is a logger: kept in order and written by main.ts with
// the logger that the configuration asks for. Messages and keys are etcd's where etcd has the line.

export type NoticeLevel = 'debug' | 'info' | 'warn' | 'error' | 'fatal';
export type NoticeField = string | number | boolean | readonly string[];

export interface Notice {
  readonly level: NoticeLevel;
  readonly caller: string;
  readonly msg: string;
  readonly fields: Readonly<Record<string, NoticeField>>;
}

export class Notices {
  readonly list: Notice[] = [];

  add(level: NoticeLevel, caller: string, msg: string, fields: Readonly<Record<string, NoticeField>> = {}): void {
    this.list.push({ level, caller, msg, fields });
  }
}
