# Perl's RPC::XML, which keeps the types of what it reads.
#
# Reads calls and writes replies, one a line, in the form that ../line.rs describes.

use strict;
use warnings;
use RPC::XML;
use RPC::XML::Client;

# Without this it says us-ascii of itself and cannot send other letters.
$RPC::XML::ENCODING = 'utf-8';

my %plain = ('\\' => '\\', t => "\t", n => "\n", r => "\r");
my %escapes = reverse %plain;

sub text { my ($token) = @_; $token =~ s/\\(.)/$plain{$1}/g; return $token }
sub escaped { my ($text) = @_; $text =~ s/([\\\t\n\r])/\\$escapes{$1}/g; return "s$text" }

sub value {
    my ($tokens) = @_;
    my $token = shift @$tokens;
    my ($kind, $rest) = (substr($token, 0, 1), substr($token, 1));
    return RPC::XML::int->new($rest) if $kind eq 'i';
    return RPC::XML::boolean->new($rest) if $kind eq 'b';
    return RPC::XML::double->new($rest) if $kind eq 'd';
    return RPC::XML::string->new(text($rest)) if $kind eq 's';
    if ($kind eq '[') {
        my @items;
        push @items, value($tokens) while $tokens->[0] ne ']';
        shift @$tokens;
        return RPC::XML::array->new(from => \@items);
    }
    my %members;
    while ((my $name = shift @$tokens) ne '}') {
        $members{ text(substr $name, 1) } = value($tokens);
    }
    return RPC::XML::struct->new(\%members);
}

sub told {
    my ($read) = @_;
    my $type = $read->type;
    return '[', (map { told($_) } @$read), ']' if $type eq 'array';
    return '{', (map { escaped($_), told($read->{$_}) } keys %$read), '}' if $type eq 'struct';
    return 'i' . $read->value if $type eq 'int' || $type eq 'i4';
    return 'b' . $read->value if $type eq 'boolean';
    return 'd' . $read->value if $type eq 'double';
    return escaped($read->value) if $type eq 'string';
    die "$type is no type of XML-RPC without extensions\n";
}

binmode STDIN, ':encoding(UTF-8)';
binmode STDOUT, ':encoding(UTF-8)';
$| = 1;
my %clients;
while (my $line = <STDIN>) {
    chomp $line;
    my ($url, $method, @tokens) = split /\t/, $line, -1;
    my @arguments;
    push @arguments, value(\@tokens) while @tokens;
    my @reply = eval {
        $clients{$url} //= RPC::XML::Client->new($url);
        my $read = $clients{$url}->send_request($method, @arguments);
        !ref $read      ? ('error', escaped($read))
        : $read->is_fault ? ('fault', 'i' . $read->code, escaped($read->string))
        :                   ('value', told($read));
    };
    @reply = ('error', escaped("$@")) if $@;
    print join("\t", @reply), "\n";
}
