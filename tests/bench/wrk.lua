-- wrk's part: which request it sends, and what it found as one line of JSON.
--
--   wrk ... -s wrk.lua URL -- post|get plain|gzip

function init(arguments)
   if arguments[1] == "post" then
      wrk.method = "POST"
      wrk.body = "<?xml version='1.0'?><methodCall><methodName>getAllVmStats</methodName><params/></methodCall>"
      wrk.headers["Content-Type"] = "text/xml"
   end
   if arguments[2] == "gzip" then
      wrk.headers["Accept-Encoding"] = "gzip"
   end
   the_request = wrk.format()
end

function request()
   return the_request
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "bytes": %d, "failed": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, summary.duration / 1e6, summary.bytes,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
