-- What wrk sends, told by its arguments behind "--": the file of a body, then headers "name: value".
-- At the end one line of JSON says what came of it.
function init(args)
   wrk.method = "POST"
   local file = assert(io.open(args[1], "rb"))
   wrk.body = file:read("*a")
   file:close()
   for index = 2, #args do
      local name, value = args[index]:match("^([^:]+): (.*)$")
      wrk.headers[name] = value
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d, "p50_ms": %.4f, "p99_ms": %.4f}\n',
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
