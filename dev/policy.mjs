// `npm run policy -- check FILE | explain METHOD URL | json FILE`: runs the native command of the crate.
//
// It builds no wasm. Files are named from where npm was called.
// Always: the exit status is the command's own; 1 for a policy with errors, 2 for a wrong call.

import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const manifest = fileURLToPath(new URL('../Cargo.toml', import.meta.url));

// The wasm build may use another toolchain; this one is the ordinary stable.
const hasRustup = spawnSync('rustup', ['--version'], { stdio: 'ignore' }).status === 0;
const toolchain = hasRustup ? { RUSTUP_TOOLCHAIN: 'stable' } : {};

const child = spawn(
  'cargo',
  ['run', '--quiet', '--manifest-path', manifest, '--bin', 'edgeweir-policy', '--', ...process.argv.slice(2)],
  { cwd: process.env.INIT_CWD ?? process.cwd(), env: { ...process.env, ...toolchain }, stdio: 'inherit' },
);
child.on('error', () => {
  console.error('cargo was not found: install Rust from https://rustup.rs, or with `apt-get install cargo`.');
  process.exitCode = 1;
});
child.on('exit', (code, signal) => {
  process.exitCode = signal === null ? code : 1;
});
