// better-auth's own routes, and one page that shows who is signed in.
import { createServer } from 'node:http';
import { fromNodeHeaders, toNodeHandler } from 'better-auth/node';
import { auth } from './auth.mjs';

const signIn = toNodeHandler(auth);
const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escaped = (text) => text.replace(/[&<>"]/g, (character) => ENTITIES[character]);

async function dashboard(request, response) {
  const found = await auth.api.getSession({ headers: fromNodeHeaders(request.headers) });
  if (!found) return response.writeHead(302, { location: '/' }).end();
  const page = `<!doctype html><title>Dashboard</title><h1>Dashboard</h1><p>Signed in as ${escaped(found.user.email)}</p>`;
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'content-length': Buffer.byteLength(page) }).end(page);
}

createServer((request, response) => {
  if (request.url.startsWith('/api/auth/')) return signIn(request, response);
  if (request.url === '/dashboard') return dashboard(request, response);
  response.writeHead(404).end();
}).listen(+process.env.PORT, '127.0.0.1');

process.on('SIGTERM', () => process.exit(0));
