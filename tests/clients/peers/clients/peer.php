<?php
// PHP's xmlrpc extension over PHP's own HTTP. The extension reads an empty struct as an empty array.
//
// Reads calls and writes replies, one a line, in the form that ../line.rs describes.

const PLAIN = ['\\\\' => '\\', '\\t' => "\t", '\\n' => "\n", '\\r' => "\r"];

function text(string $token): string
{
    return strtr($token, PLAIN);
}

function escaped(string $text): string
{
    return 's' . strtr($text, array_flip(PLAIN));
}

function value(array &$tokens)
{
    $token = array_shift($tokens);
    $rest = substr($token, 1);
    switch ($token[0]) {
        case 'i':
            return (int) $rest;
        case 'b':
            return $rest === '1';
        case 'd':
            return (float) $rest;
        case 's':
            return text($rest);
    }
    $all = [];
    while (($next = array_shift($tokens)) !== ($token === '[' ? ']' : '}')) {
        if ($token === '[') {
            array_unshift($tokens, $next);
            $all[] = value($tokens);
        } else {
            $all[text(substr($next, 1))] = value($tokens);
        }
    }
    return $all;
}

function told($read): array
{
    if (is_int($read)) {
        return ["i$read"];
    } elseif (is_bool($read)) {
        return [$read ? 'b1' : 'b0'];
    } elseif (is_float($read)) {
        return ["d$read"];
    } elseif (is_string($read)) {
        return [escaped($read)];
    } elseif (is_array($read) && array_is_list($read)) {
        return ['[', ...array_merge(...array_map('told', $read)), ']'];
    } elseif (is_array($read)) {
        $members = ['{'];
        foreach ($read as $name => $member) {
            array_push($members, escaped($name), ...told($member));
        }
        return [...$members, '}'];
    }
    throw new Exception('cannot tell what a ' . gettype($read) . ' is');
}

function call(string $url, string $method, array $arguments): array
{
    $request = xmlrpc_encode_request($method, $arguments, ['encoding' => 'utf-8', 'escaping' => 'markup']);
    $http = ['method' => 'POST', 'header' => 'Content-Type: text/xml', 'content' => $request];
    $body = file_get_contents($url, false, stream_context_create(['http' => $http]));
    if ($body === false) {
        return ['error', escaped(error_get_last()['message'])];
    }
    $read = xmlrpc_decode($body, 'utf-8');
    if (is_array($read) && xmlrpc_is_fault($read)) {
        return ['fault', 'i' . $read['faultCode'], escaped($read['faultString'])];
    }
    return ['value', ...told($read)];
}

while (($line = fgets(STDIN)) !== false) {
    $tokens = explode("\t", substr($line, 0, -1));
    $url = array_shift($tokens);
    $method = array_shift($tokens);
    $arguments = [];
    while ($tokens) {
        $arguments[] = value($tokens);
    }
    try {
        $reply = call($url, $method, $arguments);
    } catch (Throwable $error) {
        $reply = ['error', escaped($error->getMessage())];
    }
    echo implode("\t", $reply), "\n";
}
